"""InferenceService, runtime and storage container: what they ask for, and that they follow the values."""

import http.server
import json
import re
import subprocess
import sys
import threading

import pytest
import yaml

from charts.chart import CHART, EVERY_OPTION
from conf_profile.registry.format import MODEL_URI_ANNOTATION, MODEL_URI_VARIABLE
from serving import settings
from serving.predictor.__main__ import parse as parse_predictor
from support.chart_manifests import (
    EXTERNAL,
    NAME,
    NAMESPACE,
    NO_POLICY,
    PRESETS,
    environment,
    of_kind,
    one,
    pods,
    predictor_pod,
    refusal,
    render,
)

GPU = PRESETS["gpu"]
WARM_UP = CHART / "files" / "warm_up.py"


def service(*layers):
    return one(render(*layers), "InferenceService")


def runtime_container(*layers):
    (container,) = one(render(*layers), "ServingRuntime")["spec"]["containers"]
    return container


def transformer_container(*layers):
    (container,) = service(*layers)["spec"]["transformer"]["containers"]
    return container


def settings_text(*layers):
    return of_kind(render(*layers), "ConfigMap")[f"{NAME}-serving"]["data"]["settings.yaml"]


def test_kserve_is_told_how_to_deploy():
    metadata = service()["metadata"]
    assert metadata["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert metadata["labels"]["networking.kserve.io/visibility"] == "cluster-local"


def test_an_address_outside_is_made_only_when_asked_for():
    for layers in ([EXTERNAL], [{"serving": {"external": True}}, NO_POLICY]):
        assert "networking.kserve.io/visibility" not in service(*layers)["metadata"]["labels"]


def test_labels_that_change_with_the_chart_do_not_reach_kserves_pods():
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(service()["metadata"]["labels"])


@pytest.mark.parametrize("version", ["", "20260101-000000-abcdef12"])
def test_predictor_and_transformer_have_the_same_model(version):
    layer = {"serving": {"version": version}, "s3": {"bucket": "models", "model": "profiles"}}
    uri = "champion://models/models/profiles" + (f"@{version}" if version else "")
    assert service(layer)["spec"]["predictor"]["model"]["storageUri"] == uri
    annotation = {"fieldRef": {"fieldPath": f"metadata.annotations['{MODEL_URI_ANNOTATION}']"}}
    assert environment(transformer_container(layer))[MODEL_URI_VARIABLE] == annotation
    assert service(layer)["spec"]["transformer"]["annotations"][MODEL_URI_ANNOTATION] == uri


def test_the_runtime_is_chosen_by_name_and_for_nobody_else():
    documents = render()
    runtime = one(documents, "ServingRuntime")
    model = one(documents, "InferenceService")["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    (supported,) = runtime["spec"]["supportedModelFormats"]
    assert supported["name"] == model["modelFormat"]["name"] == "vLLM"
    assert supported["autoSelect"] is False


def test_on_a_cpu_the_projects_own_predictor_runs_vllm():
    container = runtime_container({"serving": {"predictor": {"maxSequences": 7, "extraArgs": ["--seed=1"]}}})
    assert container["command"] == ["python", "-m", "serving.predictor"]
    model, given, _ = parse_predictor(container["args"])
    assert (str(model), given.host, given.port, given.device) == ("/mnt/models", "0.0.0.0", 8080, "cpu")
    assert (given.served_name, given.max_sequences, list(given.further)) == ("conf-profile", 7, ["--seed=1"])


def test_on_gpus_upstreams_vllm_reads_the_models_own_arguments_beside_the_model():
    documents = render(
        GPU, {"serving": {"name": "profiles", "predictor": {"maxModelLength": 2048, "dtype": "float16"}}}
    )
    (container,) = one(documents, "ServingRuntime")["spec"]["containers"]
    assert container["image"].startswith("docker.io/vllm/vllm-openai:")
    assert container["command"] == ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    assert {"--model=/mnt/models", "--config=/mnt/models/vllm.yaml", "--tensor-parallel-size=1"} <= set(
        container["args"]
    )
    assert {"--enable-prefix-caching", "--max-model-len=2048", "--dtype=float16"} <= set(container["args"])
    initialiser = one(documents, "ClusterStorageContainer")["spec"]["container"]
    assert initialiser["command"] == ["python", "-m", "serving.storage", "--vllm-config=profiles"]


def test_gpus_are_of_the_pools_resource_in_requests_and_limits():
    pool = {"gpu": {"resource": "amd.com/gpu", "count": 8}}
    container = runtime_container(GPU, {"nodePools": {"gpu": pool}, "serving": {"predictor": {"gpus": 2}}})
    assert container["resources"]["requests"]["amd.com/gpu"] == 2
    assert container["resources"]["limits"]["amd.com/gpu"] == 2
    assert "--tensor-parallel-size=2" in container["args"]


def test_only_the_predictor_is_on_the_gpu_pool():
    spec = service(GPU)["spec"]
    assert spec["predictor"]["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["predictor"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    others = {name: pod for name, pod in pods(render(GPU)).items() if not name.endswith("/predictor")}
    assert others
    for pod in others.values():
        assert not {"nodeSelector", "tolerations"} & set(pod)


@pytest.mark.parametrize(("preset", "size"), [(GPU, "8Gi"), (PRESETS["cpu"], "512Mi")], ids=["pool", "default"])
def test_shared_memory_is_there(preset, size):
    spec = predictor_pod(render(preset))
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "shared-memory")
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": size}
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in spec["containers"][0]["volumeMounts"]


@pytest.mark.parametrize("component", ["predictor", "transformer"])
def test_a_new_pod_is_ready_before_an_old_one_goes(component):
    strategy = service()["spec"][component]["deploymentStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize("deadline", [1, 10, 29.5])
def test_a_pod_that_ends_outlives_the_requests_that_it_has(deadline):
    layer = {"serving": {"deadlineSeconds": deadline}}
    for container in (runtime_container(layer), transformer_container(layer)):
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pause >= deadline + 5
    for component in ("predictor", "transformer"):
        # vLLM and the transformer's server end their last requests after the pause.
        assert service(layer)["spec"][component]["terminationGracePeriodSeconds"] >= pause + 20


def test_the_predictor_may_load_for_long_and_is_noticed_soon():
    probe = runtime_container()["startupProbe"]
    assert probe["periodSeconds"] <= 5
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1800
    assert probe["exec"]["command"][2:] == ["http://127.0.0.1:8080", "conf-profile", str(probe["timeoutSeconds"])]


def test_the_transformer_is_probed_where_it_says_that_the_predictor_is_there():
    layer = {"serving": {"name": "profiles"}}
    assert transformer_container(layer)["readinessProbe"]["httpGet"]["path"] == "/v2/models/profiles/ready"
    # Without it KServe would name the model after the InferenceService.
    assert transformer_container(layer)["args"][-2:] == ["--model_name", "profiles"]


def test_the_settings_are_what_the_transformer_reads():
    given = settings.parse(yaml.safe_load(settings_text({"serving": {"thresholds": {"age": 4}}})), "the chart")
    assert given.thresholds == {"age": 4}
    assert str(given.features.repository) == "/var/lib/conf-profile/features"
    assert not given.write_back.enabled and not given.web
    assert given.deadline_seconds == settings.Settings.model_fields["deadline_seconds"].default


def test_every_setting_can_be_given():
    """A setting that is added to the transformer is missing here until the chart has it."""
    text = yaml.safe_load(settings_text())
    assert set(text) == set(settings.Settings.model_fields)
    # KServe gives the address.
    assert set(text["predictor"]) == set(settings.PredictorSettings.model_fields) - {"url"}
    assert set(text["features"]) == set(settings.FeatureSettings.model_fields)
    assert set(text["write_back"]) == set(settings.WriteBackSettings.model_fields)


def test_the_charts_defaults_are_the_transformers():
    given = settings.parse(yaml.safe_load(settings_text()), "the chart")
    plain = settings.Settings(model=given.model)
    changed = {"features": given.features}
    assert given == plain.model_copy(update=changed)


def test_transformers_start_anew_when_their_settings_change_and_predictors_do_not():
    before, after = service()["spec"], service({"serving": {"thresholds": {"age": 4}}})["spec"]
    assert before["transformer"]["annotations"] != after["transformer"]["annotations"]
    assert before["predictor"] == after["predictor"]


def test_without_features_the_transformer_has_no_repository():
    layer = {"features": {"enabled": False}}
    assert yaml.safe_load(settings_text(layer))["features"]["repository"] is None
    assert "REDIS_PASSWORD" not in environment(transformer_container(layer))


@pytest.mark.parametrize(
    ("uri", "ours"),
    [
        ("champion://conf-profile/models/conf-profile", True),
        ("champion://conf-profile/models/conf-profile@20260101-000000-abcdef12", True),
        ("champion://conf-profile/models/conf-profile-2", False),
        ("champion://other/models/conf-profile", False),
        ("s3://conf-profile/models/conf-profile", False),
    ],
)
def test_the_storage_container_is_for_this_model_alone(uri, ours):
    (supported,) = one(render(), "ClusterStorageContainer")["spec"]["supportedUriFormats"]
    assert bool(re.search(supported["regex"], uri)) is ours


def test_another_release_may_have_made_the_storage_container():
    assert not of_kind(render({"serving": {"storageContainer": {"create": False}}}), "ClusterStorageContainer")


def test_keys_of_the_object_store_come_from_the_secret():
    layer = {"s3": {"existingSecret": "keys", "secretKeys": {"accessKeyId": "id"}}}
    initialiser = one(render(layer), "ClusterStorageContainer")["spec"]["container"]
    for container in (initialiser, transformer_container(layer)):
        given = environment(container)
        assert given["AWS_ENDPOINT_URL_S3"] == "https://s3.example.com"
        assert given["AWS_ACCESS_KEY_ID"] == {"secretKeyRef": {"name": "keys", "key": "id"}}
        assert given["AWS_SECRET_ACCESS_KEY"] == {"secretKeyRef": {"name": "keys", "key": "AWS_SECRET_ACCESS_KEY"}}


def test_a_workload_identity_needs_no_secret():
    layer = {"s3": {"existingSecret": "", "workloadIdentity": True}}
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & set(environment(transformer_container(layer)))


def test_a_certificate_authority_of_the_company_is_mounted_everywhere_that_s3_is_asked():
    documents = render(EVERY_OPTION, {"s3": {"caConfigMap": "company-ca", "caKey": "root.pem"}})
    asking = set()
    for name, spec in pods(documents).items():
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            if "AWS_ENDPOINT_URL_S3" in environment(container):
                asking.add(name)
                assert environment(container)["AWS_CA_BUNDLE"] == "/etc/s3-ca/root.pem"
                assert {"name": "s3-ca", "mountPath": "/etc/s3-ca", "readOnly": True} in container["volumeMounts"]
                assert {"name": "s3-ca", "configMap": {"name": "company-ca"}} in spec["volumes"]
    # An online store, `helm test` and the job before an installation ask nobody for objects.
    assert len(asking) == len(pods(documents)) - 3
    assert f"Job/{NAME}-upload" in asking


def test_fixed_replicas_are_kserves_to_keep():
    spec = service({"serving": {"predictor": {"replicas": 3}}})["spec"]
    assert spec["predictor"]["minReplicas"] == 3
    assert spec["predictor"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"


SCALED = [
    {"type": "hpa"},
    {"type": "keda", "prometheus": "http://prometheus.monitoring:9090"},
]


@pytest.mark.parametrize("autoscaling", SCALED, ids=lambda given: given["type"])
def test_what_is_scaled_by_us_kserve_leaves_alone(autoscaling):
    spec = service({"serving": {"predictor": {"autoscaling": autoscaling}}})["spec"]
    assert "minReplicas" not in spec["predictor"]
    assert spec["predictor"]["annotations"]["serving.kserve.io/autoscalerClass"] == "external"
    assert spec["transformer"]["annotations"]["serving.kserve.io/autoscalerClass"] == "none"


def test_hpa_on_waiting_requests():
    autoscaling = {"type": "hpa", "minReplicas": 2, "maxReplicas": 6, "waitingRequests": 9}
    spec = one(render({"serving": {"predictor": {"autoscaling": autoscaling}}}), "HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{NAME}-predictor"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    (metric,) = spec["metrics"]
    assert metric["pods"]["metric"]["name"] == "vllm:num_requests_waiting"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "9"}


def test_keda_on_waiting_requests():
    autoscaling = {**SCALED[1], "triggerAuthentication": "prometheus"}
    spec = one(render({"serving": {"predictor": {"autoscaling": autoscaling}}}), "ScaledObject")["spec"]
    assert spec["scaleTargetRef"] == {"name": f"{NAME}-predictor"}
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["serverAddress"] == SCALED[1]["prometheus"]
    assert trigger["metadata"]["query"] == (
        f'sum(vllm:num_requests_waiting{{namespace="{NAMESPACE}",service="{NAME}-predictor"}})'
    )
    assert trigger["authenticationRef"] == {"name": "prometheus"}


@pytest.mark.parametrize("predictor", ["hpa", "keda"])
def test_no_autoscaler_has_the_name_by_which_kserve_takes_it_for_its_own(predictor):
    scaling = {"type": predictor, "prometheus": "http://prometheus:9090"}
    documents = render(
        {"serving": {"predictor": {"autoscaling": scaling}, "transformer": {"autoscaling": {"enabled": True}}}}
    )
    found = {**of_kind(documents, "HorizontalPodAutoscaler"), **of_kind(documents, "ScaledObject")}
    assert len(found) == 2
    assert not set(found) & {each["spec"]["scaleTargetRef"]["name"] for each in found.values()}


def test_transformers_scale_on_processor_use():
    spec = one(render({"serving": {"transformer": {"autoscaling": {"enabled": True}}}}), "HorizontalPodAutoscaler")[
        "spec"
    ]
    assert spec["scaleTargetRef"]["name"] == f"{NAME}-transformer"
    assert spec["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}


@pytest.mark.parametrize(
    ("predictor", "budgets"),
    [
        ({"replicas": 1}, {"transformer"}),
        ({"replicas": 2}, {"transformer", "predictor"}),
        ({"replicas": 1, "autoscaling": {"type": "hpa", "minReplicas": 2}}, {"transformer", "predictor"}),
        ({"replicas": 5, "autoscaling": {"type": "hpa", "minReplicas": 1}}, {"transformer"}),
        ({"replicas": 2, "podDisruptionBudget": {"enabled": False}}, {"transformer"}),
    ],
)
def test_a_budget_is_for_several_pods(predictor, budgets):
    found = of_kind(render({"serving": {"predictor": predictor}}), "PodDisruptionBudget")
    assert set(found) == {f"{NAME}-{part}" for part in budgets}
    for budget in found.values():
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"]["matchLabels"]["serving.kserve.io/inferenceservice"] == NAME


def test_vllm_answers_the_transformer_and_prometheus():
    policy = of_kind(render(), "NetworkPolicy")[f"{NAME}-predictor"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = policy["ingress"]
    transformer, prometheus = rule["from"]
    assert transformer["podSelector"]["matchLabels"]["component"] == "transformer"
    assert "namespaceSelector" in prometheus
    assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]


def test_callers_are_those_of_the_values():
    callers = [{"namespaceSelector": {"matchLabels": {"team": "ranking"}}}]
    layer = {"networkPolicy": {"callers": callers, "monitoring": []}}
    policies = of_kind(render(layer), "NetworkPolicy")
    assert policies[f"{NAME}-transformer"]["spec"]["ingress"][0]["from"] == callers
    nobody = of_kind(render({"networkPolicy": {"callers": [], "monitoring": []}}), "NetworkPolicy")
    assert not nobody[f"{NAME}-transformer"]["spec"]["ingress"]


@pytest.mark.parametrize(
    ("endpoint", "policy", "port"),
    [
        ("https://s3.example.com", {}, 443),
        ("http://s3.example.com", {}, 80),
        ("http://s3.storage:8333", {}, 8333),
        ("http://s3.storage:80", {"s3Ports": [8333]}, 8333),
    ],
)
def test_egress_to_the_object_store_is_by_its_port(endpoint, policy, port):
    documents = render({"s3": {"endpoint": endpoint}, "networkPolicy": policy})
    egress = of_kind(documents, "NetworkPolicy")[f"{NAME}-predictor"]["spec"]["egress"]
    assert [{"port": port, "protocol": "TCP"}] in [rule["ports"] for rule in egress]


def test_further_egress_is_for_transformer_and_predictor():
    collector = {"to": [{"namespaceSelector": {}}], "ports": [{"port": 4318, "protocol": "TCP"}]}
    policies = of_kind(render({"networkPolicy": {"extraEgress": [collector]}}), "NetworkPolicy")
    found = {name for name, policy in policies.items() if collector in policy["spec"].get("egress", ())}
    assert found == {f"{NAME}-predictor", f"{NAME}-transformer"}


def test_written_back_tags_have_a_volume_that_all_transformers_share():
    documents = render({"serving": {"writeBack": {"enabled": True}}})
    claim = of_kind(documents, "PersistentVolumeClaim")[f"{NAME}-inferred"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = one(documents, "InferenceService")["spec"]["transformer"]["volumes"]
    assert {"name": "features", "persistentVolumeClaim": {"claimName": f"{NAME}-inferred"}} in volumes


def test_service_accounts_are_made_or_named():
    assert f"{NAME}-serving" in of_kind(render(), "ServiceAccount")
    layer = {"serving": {"serviceAccount": {"create": False, "name": "theirs"}}}
    assert f"{NAME}-serving" not in of_kind(render(layer), "ServiceAccount")
    assert service(layer)["spec"]["predictor"]["serviceAccountName"] == "theirs"


def test_nothing_of_serving_is_rendered_when_it_is_off():
    kinds = {document["kind"] for document in render({"serving": {"enabled": False}})}
    assert not kinds & {"InferenceService", "ServingRuntime", "ClusterStorageContainer", "PodDisruptionBudget", "Pod"}


class Completions(http.server.BaseHTTPRequestHandler):
    """As much of vLLM as its warm-up looks at."""

    status = 200

    def do_GET(self):
        self.answer(200, b"")

    def do_POST(self):
        self.server.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(self.status, b'{"choices": [{}]}')

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def vllm():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Completions) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def warm_up(port):
    command = [sys.executable, WARM_UP, f"http://127.0.0.1:{port}", "conf-profile", "5"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_warm_up_asks_for_a_held_completion_with_probabilities(vllm):
    assert warm_up(vllm.server_port).returncode == 0
    assert vllm.asked["model"] == "conf-profile"
    assert vllm.asked["logprobs"] and vllm.asked["structured_outputs"]


def test_the_warm_up_fails_until_vllm_answers(vllm, monkeypatch):
    monkeypatch.setattr(Completions, "status", 503)
    done = warm_up(vllm.server_port)
    assert done.returncode == 1
    assert "vLLM cannot answer yet" in done.stderr
    vllm.socket.close()
    assert warm_up(vllm.server_port).returncode == 1


def test_bad_rolling_updates_are_refused():
    layer = {"serving": {"transformer": {"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 0}}}}
    assert "serving.transformer.rollingUpdate: maxSurge and maxUnavailable are both 0" in refusal(layer)
