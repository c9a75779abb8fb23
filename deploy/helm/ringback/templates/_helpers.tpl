{{- define "ringback.name" -}}
{{- $name := contains "ringback" .Release.Name | ternary .Release.Name (printf "%s-ringback" .Release.Name) -}}
{{- trunc 45 $name | trimSuffix "-" -}}
{{- end }}

{{- define "ringback.selector" -}}
app.kubernetes.io/name: ringback
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "ringback.labels" -}}
{{ include "ringback.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Takes (list . component). */ -}}
{{- define "ringback.podLabels" -}}
{{ include "ringback.selector" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "ringback.secretName" -}}
{{- if .Values.secret.existing -}}
{{ .Values.secret.existing }}
{{- else -}}
{{ include "ringback.name" . }}
{{- end -}}
{{- end }}

{{- define "ringback.secretData" -}}
{{- range $variable := list "RINGBACK_DATABASE_URL" "RINGBACK_REDIS_URL" "RINGBACK_SECRET_KEY" }}
{{- if not (index $.Values.secret.values $variable) }}
{{- fail (printf "Set secret.existing to the name of a secret, or secret.values.%s" $variable) }}
{{- end }}
{{- end }}
{{- toYaml .Values.secret.values }}
{{- end }}

{{- define "ringback.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* A value as text. Helm reads each number as a float, and would print 3000000 as 3e+06. */ -}}
{{- define "ringback.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
{{- end }}

{{- define "ringback.settings" -}}
{{- if and .Values.ingress.enabled (not .Values.settings.RINGBACK_PUBLIC_URL) }}
- name: RINGBACK_PUBLIC_URL
  value: {{ printf "%s://%s" (empty .Values.ingress.tlsSecret | ternary "http" "https") .Values.ingress.host | quote }}
{{- end }}
{{- range $variable, $value := .Values.settings }}
- name: {{ $variable }}
  value: {{ include "ringback.text" $value | quote }}
{{- end }}
{{- end }}

{{- define "ringback.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ringback.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What pods of every component share, up to their containers. */ -}}
{{- define "ringback.pod" -}}
serviceAccountName: {{ .Values.serviceAccountName }}
automountServiceAccountToken: false
# A Service called ringback would set RINGBACK_PORT=tcp://…, which is the name of a setting.
enableServiceLinks: false
# The kernel drops signals to process 1 while that has no handler yet. So the pod's pause process is number 1.
shareProcessNamespace: true
securityContext: {{- include "ringback.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The Deployment of one component. Takes a dict: root, component, options, args, grace (seconds a stopping pod needs),
environment, ports, handlers (probes and hooks), strategy. */ -}}
{{- define "ringback.deployment" -}}
{{- $root := .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "ringback.name" $root }}-{{ .component }}
  labels:
    {{- include "ringback.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  {{- if not .options.autoscaling.enabled }}
  replicas: {{ .options.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy: {{- toYaml .strategy | nindent 4 }}
  selector:
    matchLabels: {{- include "ringback.podLabels" (list $root .component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "ringback.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
      annotations:
        {{- if not $root.Values.secret.existing }}
        checksum/secret: {{ include "ringback.secretData" $root | sha256sum }}
        {{- end }}
        {{- with $root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "ringback.pod" $root | nindent 6 }}
      terminationGracePeriodSeconds: {{ .grace }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "ringback.podLabels" (list $root .component) | nindent 14 }}
      containers:
        - name: {{ .component }}
          image: {{ include "ringback.image" $root | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: {{ toJson .args }}
          envFrom:
            - secretRef: {name: {{ include "ringback.secretName" $root | quote }}}
          env:
            - {name: RINGBACK_METRICS_PORT, value: {{ $root.Values.metrics.port | quote }}}
            {{- range $variable, $value := .environment }}
            - {name: {{ $variable }}, value: {{ $value | quote }}}
            {{- end }}
            {{- include "ringback.settings" $root | trim | nindent 12 }}
          ports:
            {{- range $name, $port := .ports }}
            - {name: {{ $name }}, containerPort: {{ $port }}}
            {{- end }}
            - {name: metrics, containerPort: {{ $root.Values.metrics.port }}}
          {{- toYaml .handlers | nindent 10 }}
          resources: {{- toYaml .options.resources | nindent 12 }}
          securityContext: {{- include "ringback.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: tmp, mountPath: /tmp}
            {{- with $root.Values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: data
          {{- if $root.Values.settings.RINGBACK_S3_BUCKET }}
          emptyDir: {}
          {{- else }}
          persistentVolumeClaim:
            claimName: {{ $root.Values.data.existingClaim | default (printf "%s-data" (include "ringback.name" $root)) }}
          {{- end }}
        - {name: tmp, emptyDir: {}}
        {{- with $root.Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}
