{{/* foldback.yaml: the operator's settings, then what follows from the chart's own values. */}}
{{- define "foldback.settings" -}}
{{- $kafka := dict
  "bootstrap_servers" .Values.kafka.bootstrapServers
  "security_protocol" (print (ternary "SASL_" "" (ne .Values.kafka.credentialsSecret "")) (ternary "SSL" "PLAINTEXT" .Values.kafka.tls))
  "ssl_cafile" (ternary "/etc/foldback-kafka/ca.crt" "" (ne .Values.kafka.caSecret ""))
}}
{{- $chart := dict
  "data_dir" "/var/lib/foldback"
  "model" (dict "name" .Values.model.name "dir" "/var/cache/foldback/models")
  "feedback" $kafka
  "registry" (dict "url" (default "file:///registry" .Values.registry.url))
  "server" (dict
    "host" "0.0.0.0" "port" 50051 "admin_port" 50052 "metrics_port" 9464 "drain_timeout_s" .Values.server.drainSeconds
    "access" (include "foldback.access" . | fromYaml))
  "trainer" (dict
    "metrics_host" "0.0.0.0" "metrics_port" 9465
    "server_access" (include "foldback.trainerAccess" . | fromYaml)
    "server_admin_address" (printf "%s-admin.%s.svc:50052" (include "foldback.fullname" .) .Release.Namespace))
}}
{{- mergeOverwrite (deepCopy .Values.settings) $chart | toYaml }}
{{- end }}
