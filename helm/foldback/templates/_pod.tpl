{{/* What all pods share. Paths: /var/lib/foldback must not be lost, /var/cache/foldback may be, /registry is shared. */}}

{{/* Top of a pod's spec, and where it runs: (list $ .Values.server) */}}
{{- define "foldback.pod" -}}
{{- $root := first . -}}
# Service links would put FOLDBACK_PORT=tcp://… into the environment, which settings refuse.
enableServiceLinks: false
automountServiceAccountToken: false
serviceAccountName: {{ include "foldback.fullname" $root }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $field := list "priorityClassName" "runtimeClassName" }}
{{- with get (last $) $field }}
{{ $field }}: {{ . }}
{{- end }}
{{- end }}
{{- range $field := list "nodeSelector" "tolerations" "affinity" }}
{{- with get (last $) $field }}
{{ $field }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "foldback.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Of every container; the trainer's has its key to the admin port besides: (merge (dict "adminKey" "secret") $) */}}
{{- define "foldback.environment" -}}
env:
  - {name: FOLDBACK_CONFIG, value: /etc/foldback/foldback.yaml}
  # Hub, compiler and kernel caches follow the home directory.
  - {name: HOME, value: /var/cache/foldback}
  {{- with .Values.kafka.credentialsSecret }}
  - name: FOLDBACK_FEEDBACK__SASL_USERNAME
    valueFrom: {secretKeyRef: {name: {{ . }}, key: username}}
  - name: FOLDBACK_FEEDBACK__SASL_PASSWORD
    valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}
  {{- end }}
  {{- with .adminKey }}
  - name: FOLDBACK_TRAINER__SERVER_ACCESS__API_KEY
    valueFrom: {secretKeyRef: {name: {{ . }}, key: key}}
  {{- end }}
  {{- with .Values.environment }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.registry.credentialsSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Mounts that every container has. */}}
{{- define "foldback.mounts" -}}
- {name: settings, mountPath: /etc/foldback, readOnly: true}
- {name: temporary, mountPath: /tmp}
{{- if .Values.kafka.caSecret }}
- {name: kafka-ca, mountPath: /etc/foldback-kafka, readOnly: true}
{{- end }}
{{- end }}

{{- define "foldback.volumes" -}}
- name: settings
  configMap: {name: {{ include "foldback.fullname" . }}}
- name: temporary
  emptyDir: {sizeLimit: 1Gi}
{{- with .Values.kafka.caSecret }}
- name: kafka-ca
  secret: {secretName: {{ . }}}
{{- end }}
{{- end }}

{{/* Mounts of the containers that load a model and read versions. */}}
{{- define "foldback.modelMounts" -}}
- {name: cache, mountPath: /var/cache/foldback}
{{- if .Values.model.claim }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- if not .Values.registry.url }}
- {name: registry, mountPath: /registry}
{{- end }}
{{- end }}

{{/* Their volumes: (list $ .Values.server) */}}
{{- define "foldback.modelVolumes" -}}
{{- $root := first . -}}
- name: cache
  emptyDir: {sizeLimit: {{ (last .).cache.size }}}
{{- with $root.Values.model.claim }}
- name: models
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- if not $root.Values.registry.url }}
- name: registry
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-registry" (include "foldback.fullname" $root)) $root.Values.registry.volume.claim }}
{{- end }}
{{- end }}

{{/* How fast the servers' number follows the queue: up at once, down one at a time, as each takes its spool with it. */}}
{{- define "foldback.scaling" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies: [{type: Percent, value: 100, periodSeconds: 60}]
scaleDown:
  stabilizationWindowSeconds: 900
  policies: [{type: Pods, value: 1, periodSeconds: 300}]
{{- end }}
