{{/* Name of everything in this release, short enough for suffixes and for a DNS label. */}}
{{- define "weir.name" -}}
{{- .Release.Name | trunc 44 | trimSuffix "-" -}}
{{- end -}}

{{- define "weir.selector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "weir.labels" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* A pod of one component; what differs is passed: component, settings, ports, health port, scratch folders. */}}
{{- define "weir.pod" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "weir.selector" . | nindent 4 }}
    app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  annotations:
    # A changed configuration is a changed pod.
    checksum/config: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
    checksum/private: {{ include (print .root.Template.BasePath "/secret.yaml") .root | sha256sum }}
    {{- with $values.pod_annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "weir.name" .root }}
  automountServiceAccountToken: false
  # Else every Service of the namespace appears in the environment, this release's as WEIR_JOBMANAGER_PORT and the like.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .settings.termination_grace_period }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  {{- with $values.image_pull_secrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: "{{ $values.image.repository }}:{{ $values.image.tag | default .root.Chart.AppVersion }}"
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [/usr/local/bin/weir-{{ .component }}]
      args:
        {{- range $name, $_ := $values.app.config_files }}
        - --config
        - /etc/weir/{{ $name }}
        {{- end }}
      env:
        # The same for both programs, used by one or not: status tells taskmanagers whose configuration differs.
        - {name: WEIR__JOBMANAGER__ADDRESS, value: "{{ include "weir.name" .root }}-jobmanager:6123"}
        - {name: WEIR__JOBMANAGER__BIND, value: "0.0.0.0:6123"}
        - {name: WEIR__JOBMANAGER__HTTP_BIND, value: "0.0.0.0:8081"}
        - {name: WEIR__JOBMANAGER__METRICS_BIND, value: "0.0.0.0:9999"}
        - {name: WEIR__TASKMANAGER__METRICS_BIND, value: "0.0.0.0:9999"}
        - {name: WEIR__TASKMANAGER__DRAIN_TIMEOUT, value: "{{ $values.taskmanager.drain_timeout }} s"}
        - {name: WEIR__LOG__FORMAT, value: {{ $values.log.format | quote }}}
        - {name: WEIR__LOG__LEVEL, value: {{ $values.log.level | quote }}}
        {{- range $name, $value := $values.config.public }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
        {{- end }}
      envFrom:
        - secretRef: {name: {{ include "weir.name" .root }}-private}
        {{- with $values.config.private_secret }}
        - secretRef: {name: {{ . }}}
        {{- end }}
      ports:
        {{- range $name, $port := .ports }}
        - {name: {{ $name }}, containerPort: {{ $port }}}
        {{- end }}
      # Start-up waits for Kafka and for the stream configuration; liveness would only make that longer.
      startupProbe:
        httpGet: {path: /healthz, port: {{ .health }}}
        periodSeconds: 2
        failureThreshold: 90
      livenessProbe:
        httpGet: {path: /healthz, port: {{ .health }}}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: {{ .health }}}
        periodSeconds: 3
        timeoutSeconds: 3
      resources:
        {{- toYaml .settings.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: config, mountPath: /etc/weir, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- range $name, $path := .scratch }}
        - {name: {{ $name }}, mountPath: {{ $path }}}
        {{- end }}
        {{- with $values.volume_mounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "weir.name" .root }}-config}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    {{- range $name, $_ := .scratch }}
    - name: {{ $name }}
      emptyDir: {}
    {{- end }}
    {{- with $values.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .settings.node_selector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .settings.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .settings.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
