{{- define "foldback.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Room is left for the longest suffix, so that every name stays within 63 characters. */}}
{{- define "foldback.fullname" -}}
{{- $name := include "foldback.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- end }}

{{- define "foldback.labels" -}}
{{ include "foldback.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What every pod of this release carries; templates add app.kubernetes.io/component. */}}
{{- define "foldback.selector" -}}
app.kubernetes.io/name: {{ include "foldback.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* image of a component: (dict "root" $ "component" "server") */}}
{{- define "foldback.image" -}}
{{- $image := .root.Values.image -}}
{{ $image.prefix }}foldback-{{ .component }}:{{ default .root.Chart.AppVersion $image.tag }}
{{- end }}
