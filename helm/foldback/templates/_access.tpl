{{/* Who may call the server, and over TLS: settings and the Secrets' files in /etc/foldback-access. Whole directories are
     mounted, no subPath: so files follow their Secrets, and whoever reads them anew needs no restart. */}}

{{/* server.access of foldback.yaml */}}
{{- define "foldback.access" -}}
{{- range $name, $secret := dict "api_keys" .Values.server.access.apiKeysSecret "admin_keys" .Values.server.access.adminKeysSecret }}
{{- if and $secret (dig "server" "access" $name "" $.Values.settings) }}
{{- fail (printf "settings.server.access.%s and the Secret %s: keep the keys in one of them" $name $secret) }}
{{- end }}
{{- if $secret }}
{{ $name }}_file: /etc/foldback-access/{{ $name }}.yaml
{{- end }}
{{- end }}
{{- with .Values.server.tls }}
{{- if .secret }}
tls_certificate: /etc/foldback-access/tls.crt
tls_key: /etc/foldback-access/tls.key
{{- else if or .caSecret .clientCaSecret .adminClientCaSecret $.Values.trainer.certificateSecret }}
{{- fail "server.tls.secret is empty, and another value asks for TLS: name the Secret with the server's certificate" }}
{{- end }}
{{- if .clientCaSecret }}
client_ca: /etc/foldback-access/client-ca.crt
{{- end }}
{{- if .adminClientCaSecret }}
admin_client_ca: /etc/foldback-access/admin-client-ca.crt
{{- end }}
{{- end }}
{{- end }}

{{/* Its Secrets: sources of a projected volume; empty without any. */}}
{{- define "foldback.accessSources" -}}
{{- $access := .Values.server.access -}}
{{- $tls := .Values.server.tls -}}
{{- with $access.apiKeysSecret }}
- secret: {name: {{ . }}, items: [{key: api_keys.yaml, path: api_keys.yaml}]}
{{- end }}
{{- with $access.adminKeysSecret }}
- secret: {name: {{ . }}, items: [{key: admin_keys.yaml, path: admin_keys.yaml}]}
{{- end }}
{{- with $tls.secret }}
- secret: {name: {{ . }}, items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]}
{{- end }}
{{- with $tls.clientCaSecret }}
- secret: {name: {{ . }}, items: [{key: ca.crt, path: client-ca.crt}]}
{{- end }}
{{- with $tls.adminClientCaSecret }}
- secret: {name: {{ . }}, items: [{key: ca.crt, path: admin-client-ca.crt}]}
{{- end }}
{{- end }}

{{/* trainer.server_access of foldback.yaml; the trainer's API key is a variable of its container. */}}
{{- define "foldback.trainerAccess" -}}
{{- if .Values.server.tls.secret }}
tls_ca: {{ ternary "/etc/foldback-access/ca.crt" "system" (ne .Values.server.tls.caSecret "") }}
{{- if .Values.trainer.certificateSecret }}
tls_certificate: /etc/foldback-access/tls.crt
tls_key: /etc/foldback-access/tls.key
{{- end }}
{{- end }}
{{- end }}

{{/* Its Secrets, as above. */}}
{{- define "foldback.trainerAccessSources" -}}
{{- with .Values.server.tls.caSecret }}
- secret: {name: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- with .Values.trainer.certificateSecret }}
- secret: {name: {{ . }}, items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]}
{{- end }}
{{- end }}
