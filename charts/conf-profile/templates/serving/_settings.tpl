{{/* The transformer's settings file; `serving/settings.py` has every key. */}}
{{- define "conf-profile.serving.settings" -}}
{{- $serving := .Values.serving -}}
name: {{ $serving.name }}
model: /var/lib/conf-profile/model
thresholds: {{ toJson $serving.thresholds }}
deadline_seconds: {{ $serving.deadlineSeconds }}
max_instances: {{ int64 $serving.maxInstances }}
max_samples: {{ int64 $serving.maxSamples }}
traces_endpoint: {{ default nil $serving.tracesEndpoint | toJson }}
web: {{ $serving.web }}
predictor:
  model: {{ $serving.name }}
  by_version: {{ $serving.client.byVersion }}
  concurrency: {{ int64 $serving.client.concurrency }}
  max_attempts: {{ int64 $serving.client.maxAttempts }}
  backoff_seconds: {{ $serving.client.backoffSeconds }}
  breaker_failures: {{ int64 $serving.client.breakerFailures }}
  breaker_seconds: {{ $serving.client.breakerSeconds }}
  structured_output: {{ $serving.client.structuredOutput }}
  vote_temperature: {{ $serving.client.voteTemperature }}
features:
  repository: {{ ternary "/var/lib/conf-profile/features" nil .Values.features.enabled | toJson }}
  require_consent: {{ $serving.requireConsent }}
write_back:
  enabled: {{ $serving.writeBack.enabled }}
  batch_size: {{ int64 $serving.writeBack.batchSize }}
  interval_seconds: {{ $serving.writeBack.intervalSeconds }}
  max_waiting: {{ int64 $serving.writeBack.maxWaiting }}
  shutdown_seconds: {{ $serving.writeBack.shutdownSeconds }}
{{- end }}
