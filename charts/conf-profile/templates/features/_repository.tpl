{{/* feature_store.yaml: Feast's repository. */}}
{{- define "conf-profile.features.repository" -}}
{{- $store := .Values.features.onlineStore }}
{{- $password := ternary ",password=${REDIS_PASSWORD}" "" (ne "" (include "conf-profile.features.onlineStore.secret" .)) -}}
project: {{ .Values.features.project }}
provider: local
registry:
  registry_type: file
  path: {{ default (printf "s3://%s/feast/%s/%s/registry.db" .Values.s3.bucket .Release.Namespace (include "conf-profile.fullname" .)) .Values.features.registry }}
  {{- with .Values.s3.encryption }}
  s3_additional_kwargs:
    ServerSideEncryption: {{ ternary "AES256" "aws:kms" (eq . "sse-s3") }}
    {{- if hasPrefix "sse-kms:" . }}
    SSEKMSKeyId: {{ trimPrefix "sse-kms:" . }}
    {{- end }}
  {{- end }}
  # Loaded once: no request ever waits for a refresh.
  cache_ttl_seconds: 0
  serve_features_while_materializing: true
offline_store:
  type: file
online_store:
  type: redis
  connection_string: "{{ include "conf-profile.features.onlineStore.address" . }}{{ $password }}{{ ternary ",ssl=true" "" $store.tls }}"
entity_key_serialization_version: 3
{{- end }}
