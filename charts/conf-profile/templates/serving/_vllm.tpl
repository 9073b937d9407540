{{/* Image, command and arguments of vLLM on a CPU: the project's own, which knows what a CPU needs. */}}
{{- define "conf-profile.serving.cpu.command" -}}
{{- $predictor := .Values.serving.predictor -}}
{{ include "conf-profile.image" (list . "predictorCpu") }}
command: [python, -m, serving.predictor]
args:
  - --model=/mnt/models
  - --served-name={{ .Values.serving.name }}
  - --host=0.0.0.0
  - --port=8080
  - --device=cpu
  - --max-sequences={{ $predictor.maxSequences }}
  {{- with include "conf-profile.serving.vllm.overrides" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}

{{/*
The same for upstream's image on GPUs. What follows from the model (names, length, number format) the storage initialiser
writes beside it, for --config; `serving/predictor/arguments.py` explains it.
*/}}
{{- define "conf-profile.serving.gpu.command" -}}
{{- $predictor := .Values.serving.predictor -}}
{{ include "conf-profile.image" (list . "predictorGpu") }}
command: [python3, -m, vllm.entrypoints.openai.api_server]
args:
  - --model=/mnt/models
  - --config=/mnt/models/vllm.yaml
  - --host=0.0.0.0
  - --port=8080
  - --max-num-seqs={{ $predictor.maxSequences }}
  - --tensor-parallel-size={{ $predictor.gpus }}
  - --gpu-memory-utilization={{ $predictor.gpuMemoryUtilization }}
  - --enable-prefix-caching
  - --uvicorn-log-level=warning
  - --disable-access-log-for-endpoints=/health,/metrics
  {{- with include "conf-profile.serving.vllm.overrides" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "conf-profile.serving.vllm.overrides" -}}
{{- $predictor := .Values.serving.predictor -}}
{{- $given := list }}
{{- if $predictor.maxModelLength }}
{{- $given = append $given (printf "--max-model-len=%d" (int $predictor.maxModelLength)) }}
{{- end }}
{{- if $predictor.dtype }}
{{- $given = append $given (printf "--dtype=%s" $predictor.dtype) }}
{{- end }}
{{- with concat $given $predictor.extraArgs -}}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Size of /dev/shm: vLLM's processes talk through it and want 160 MiB at the least, where a container has 64. */}}
{{- define "conf-profile.serving.vllm.sharedMemory" -}}
{{- default "512Mi" (index .Values.nodePools .Values.serving.predictor.pool).sharedMemory }}
{{- end }}

{{/* Offline and silent; everything that is written goes to /tmp. */}}
{{- define "conf-profile.serving.vllm.env" -}}
- name: HF_HUB_OFFLINE
  value: "1"
- name: HF_HOME
  value: /tmp/huggingface
- name: VLLM_CACHE_ROOT
  value: /tmp/vllm
- name: VLLM_CONFIG_ROOT
  value: /tmp/vllm-config
- name: TORCHINDUCTOR_CACHE_DIR
  value: /tmp/torchinductor
- name: TRITON_CACHE_DIR
  value: /tmp/triton
- name: VLLM_NO_USAGE_STATS
  value: "1"
- name: DO_NOT_TRACK
  value: "1"
{{- if eq .Values.serving.predictor.device "cpu" }}
- name: VLLM_CPU_KVCACHE_SPACE
  value: {{ .Values.serving.predictor.cpuCacheGiB | quote }}
{{- end }}
{{- end }}
