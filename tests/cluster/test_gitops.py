"""The chart as Argo CD brings it in: `helm template`, hooks first, then `kubectl apply`, with no release of Helm's.

The pods of the job before a sync are played, with its own script and token.
"""

import re
import shutil
from copy import deepcopy

import pytest
import yaml

from charts.chart import CHART, EXAMPLE
from conf_profile.registry.format import MODEL_URI_ANNOTATION
from conf_profile.rollout import state as rollout_state
from conf_profile.rollout.serving_cluster import ServingCluster
from support.cluster.hook_pods import UNPLACED, played_hooks
from support.cluster.kube import CommandError, until
from support.paths import ROOT

HOOK = "argocd.argoproj.io/hook"
MANAGER = "argocd-controller"
LOCAL = {"s3": {"checkSecret": False}}
ONE, TWO = "20260101-000000-aaaaaaaa", "20260202-000000-bbbbbbbb"
FINISHED = 'jsonpath={.status.conditions[?(@.status=="True")].type}'


@pytest.fixture
def release(namespace, kserve, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", namespace.cluster.kubeconfig)
    namespace.secret("object-store", AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret")
    with played_hooks(namespace):
        yield namespace.release()


def rendering(release, *layers):
    return release.rendered(EXAMPLE, UNPLACED, LOCAL, *layers)


def phase_of(document):
    notes = document["metadata"].get("annotations") or {}
    return notes.get(HOOK, "" if "helm.sh/hook" not in notes else "unknown")


def sync(release, *layers, ignored=()):
    """As Argo CD does: PreSync hooks in their order, made anew, then the rest; ignored fields as they are live."""
    documents = rendering(release, *layers)
    hooks = [each for each in documents if phase_of(each) == "PreSync"]
    for weight in sorted({weight_of(each) for each in hooks}):
        wave = [each for each in hooks if weight_of(each) == weight]
        for each in wave:
            delete(release, each)
        release.namespace.apply(*wave)
    run_to_its_end(release)
    rest = [keep_live(release, each, ignored) for each in documents if not phase_of(each)]
    options = ("--server-side", "--force-conflicts", f"--field-manager={MANAGER}")
    release.namespace.apply(*rest, options=options)
    return rest


def weight_of(document):
    return int(document["metadata"]["annotations"]["helm.sh/hook-weight"])


def delete(release, document):
    name = f"{document['kind']}/{document['metadata']['name']}"
    namespace = document["metadata"].get("namespace", release.namespace.name)
    release.namespace.cluster.kubectl("delete", name, f"--namespace={namespace}", "--ignore-not-found")


def run_to_its_end(release):
    """The job of the PreSync phase; what it said where it failed is the error."""
    job = f"job/{release.fullname}-prepare"
    ended = until("the job has ended", lambda: conditions(release, job) & {"Complete", "Failed"})
    if "Failed" in ended:
        (pod,) = release.namespace.pods(f"batch.kubernetes.io/job-name={release.fullname}-prepare")
        raise CommandError(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])


def conditions(release, job):
    return set(release.namespace.kubectl("get", job, f"--output={FINISHED}").split())


def keep_live(release, document, pointers):
    """What RespectIgnoreDifferences does: the live value in the place of the rendered one."""
    if document["kind"] != "InferenceService" or not pointers:
        return document
    live, wanted = release.namespace.get("inferenceservice", release.fullname), deepcopy(document)
    for pointer in pointers:
        *way, last = [step.replace("~1", "/") for step in pointer.split("/")[1:]]
        source, target = live, wanted
        for step in way:
            source, target = source[step], target[step]
        target[last] = source[last]
    return wanted


def ignored_fields():
    """The rule of the documentation's example."""
    text = (ROOT / "docs" / "gitops.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    (example,) = (found for block in blocks for found in yaml.safe_load_all(block) if found["kind"] == "Application")
    (rule,) = example["spec"]["ignoreDifferences"]
    return rule["jsonPointers"]


def uri(release, version=""):
    return f"champion://conf-profile/models/{release.model}" + (f"@{version}" if version else "")


def served(release):
    """What predictor and transformer are told to use; both must agree."""
    references = rollout_state.find_model_references(release.namespace.get("inferenceservice", release.fullname))
    assert len(references) == 2
    (found,) = set(references.values())
    return found


def roll_out(release, version):
    """What `conf-profile rollout` changes."""
    ServingCluster(release.namespace.name, release.fullname).pin(uri(release, version))


def password(release):
    secret = release.namespace.get("secret", f"{release.fullname}-online-store")
    return secret["data"]["password"], secret["metadata"]["resourceVersion"]


def image(release):
    (container,) = release.namespace.get("inferenceservice", release.fullname)["spec"]["transformer"]["containers"]
    return container["image"]


def test_a_sync_makes_all_and_the_next_one_changes_nothing(release):
    rest = sync(release)
    before = password(release)
    generations = [live(release, each)["metadata"].get("generation") for each in rest]
    again = sync(release)
    assert again == rest and password(release) == before
    assert [live(release, each)["metadata"].get("generation") for each in rest] == generations


def name(document):
    return f"{document['kind']}/{document['metadata']['name']}"


def live(release, document):
    kind = f"{document['kind']}.{document['apiVersion'].rpartition('/')[0]}".rstrip(".")
    return release.namespace.get(kind, document["metadata"]["name"])


def test_what_is_live_is_what_is_rendered(release):
    """Else Argo CD shows the application as OutOfSync for ever: nothing rewrites a value on its way in."""
    for document in sync(release):
        found = live(release, document)
        assert list(differences(document, found, name(document))) == []


def differences(wanted, found, place):
    """Places where a rendered value is another one in the cluster; what is only there is not looked at."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            yield from differences(value, found.get(key), f"{place}/{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for row, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(one, other, f"{place}/{row}")
    elif wanted != found and not (wanted in ({}, [], "", False, None) and found is None):
        yield f"{place}: {wanted!r} became {found!r}"


def test_a_rolled_out_version_survives_a_sync_that_leaves_its_fields_alone(release):
    """And what else the sync brings still arrives."""
    sync(release)
    roll_out(release, ONE)
    newer = {"images": {"serving": {"tag": "2.0.0"}}}
    sync(release, newer, ignored=ignored_fields())
    assert served(release) == uri(release, ONE)
    assert image(release).endswith(":2.0.0")
    roll_out(release, TWO)
    sync(release, newer, ignored=ignored_fields())
    assert served(release) == uri(release, TWO)


def test_a_version_in_the_values_survives_every_sync(release):
    sync(release)
    roll_out(release, ONE)
    pinned = {"serving": {"version": ONE}}
    for layers in ([pinned], [pinned, {"serving": {"thresholds": {"age": 4}}}]):
        sync(release, *layers)
        assert served(release) == uri(release, ONE)
    # As plain `kubectl apply` does it, too.
    release.namespace.apply(*(each for each in rendering(release, pinned) if each["kind"] == "InferenceService"))
    assert served(release) == uri(release, ONE)


def test_the_rendering_over_a_release_of_helms_keeps_what_was_rolled_out(release):
    release.install(EXAMPLE, UNPLACED)
    roll_out(release, ONE)
    release.install(EXAMPLE, UNPLACED, {"images": {"serving": {"tag": "2.0.0"}}})
    assert served(release) == uri(release, ONE) and image(release).endswith(":2.0.0")
    before = password(release)
    sync(release, ignored=ignored_fields())
    assert served(release) == uri(release, ONE) and password(release) == before
    sync(release, {"serving": {"version": TWO}})
    assert served(release) == uri(release, TWO)


def test_a_rollout_that_a_sync_undoes_says_who_did(release):
    sync(release)
    roll_out(release, ONE)
    sync(release)
    found = ServingCluster(release.namespace.name, release.fullname).progress(uri(release, ONE))
    assert f"{MANAGER} has set /spec/predictor/model/storageUri to {uri(release)}" in found.failed
    assert "docs/gitops.md" in found.failed


def test_a_rollout_owns_its_fields_alone(release):
    """What it owned besides would be a conflict at the next upgrade by Helm 4."""
    sync(release)
    roll_out(release, ONE)
    service = release.namespace.get("inferenceservice", release.fullname, "--show-managed-fields")
    (mine,) = (
        each["fieldsV1"] for each in service["metadata"]["managedFields"] if each["manager"] == "conf-profile-rollout"
    )
    assert mine == {
        "f:spec": {
            "f:predictor": {"f:model": {"f:storageUri": {}}},
            "f:transformer": {"f:annotations": {f"f:{MODEL_URI_ANNOTATION}": {}}},
        }
    }


def test_a_second_release_of_the_model_is_refused_before_anything_of_it_is_made(cluster, release):
    sync(release)
    with cluster.namespace() as elsewhere, played_hooks(elsewhere):
        other, same = elsewhere.release(), {"s3": {"model": release.model}}
        with pytest.raises(CommandError) as refused:
            sync(other, same)
        assert f"ClusterStorageContainer {release.namespace.name}-{release.fullname} of another release" in str(
            refused.value
        )
        assert not elsewhere.get("inferenceservices,deployments,cronjobs")
        sync(other, same, {"serving": {"storageContainer": {"create": False}}})


def test_a_second_release_of_the_name_is_refused(release):
    """The chart leaves its own name out of the objects' names where the release's has it; Helm alone would find out."""
    sync(release)
    other = release.namespace.release(release.fullname)
    assert other.fullname == release.fullname
    with pytest.raises(CommandError) as refused:
        sync(other)
    assert f"belongs to the release {release.namespace.name}/{release.name}" in str(refused.value)
    assert f"{other.namespace.name}/{other.name} would overwrite it" in str(refused.value)


def test_helm_is_refused_by_the_job_where_it_is_told_not_to_look(release):
    """`--take-ownership` is how a release of Argo CD's goes over to Helm; another one's does not."""
    sync(release)
    other = release.namespace.release(release.fullname)
    with pytest.raises(CommandError, match=r"pre-install.*failed") as refused:
        other.install(EXAMPLE, UNPLACED, LOCAL, options=("--take-ownership",))
    assert "BackoffLimitExceeded" not in str(refused.value)
    release.install(EXAMPLE, UNPLACED, options=("--take-ownership", "--force-conflicts"))


BEFORE = """\
{{- if not .Values.features.onlineStore.existingSecret }}
{{- $name := printf "%s-online-store" (include "conf-profile.fullname" .) }}
{{- $there := lookup "v1" "Secret" .Release.Namespace $name }}
apiVersion: v1
kind: Secret
metadata:
  name: {{ $name }}
  namespace: {{ .Release.Namespace }}
data:
  password: {{ dig "data" "password" (randAlphaNum 32 | b64enc) $there }}
{{- end }}
"""
"""How the chart made the password when it rendered it."""
ENVIRONMENT = """          - name: CONF_PROFILE_MODEL_URI
            valueFrom:
              fieldRef: {fieldPath: "metadata.annotations['conf-profile/model']"}
"""


@pytest.fixture
def chart_before(tmp_path):
    """This chart with what has changed put back."""
    made = tmp_path / "conf-profile"
    shutil.copytree(CHART, made)
    shutil.rmtree(made / "templates" / "prepare")
    (made / "templates" / "_prepare.tpl").write_text(
        '{{- define "conf-profile.checks.prepare" }}{{ end }}\n'
        '{{- define "conf-profile.prepare.secret" }}{{ end }}\n'
        '{{- define "conf-profile.release" }}{{ .Release.Namespace }}{{ end }}\n'
    )
    (made / "templates" / "secret.yaml").write_text(BEFORE)
    service = made / "templates" / "serving" / "inferenceservice.yaml"
    text = service.read_text(encoding="utf-8")
    before = "          - name: CONF_PROFILE_MODEL_URI\n            value: {{ $model }}\n"
    assert ENVIRONMENT in text
    service.write_text(
        text.replace(ENVIRONMENT, before).replace("      conf-profile/model: {{ $model }}\n", ""), encoding="utf-8"
    )
    for path in (made / "templates").rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        marked = '    conf-profile/release: {{ include "conf-profile.release" . }}\n'
        path.write_text(text.replace(f"  annotations:\n{marked}", "").replace(marked, ""), encoding="utf-8")
    return made


def test_a_release_of_the_chart_before_keeps_its_password_and_its_version(release, chart_before):
    release.install(EXAMPLE, chart=chart_before)
    before = password(release)[0]
    roll_out(release, ONE)
    force = ["--force-conflicts"] if "--force-conflicts" in release.namespace.cluster.helm("upgrade", "--help") else []
    if force:
        # The rollout owns the list that held the variable.
        with pytest.raises(CommandError, match=r"conflict.*conf-profile-rollout.*\.spec\.transformer\.containers"):
            release.install(EXAMPLE, UNPLACED)
        assert password(release)[0] == before and served(release) == uri(release, ONE)
    release.install(EXAMPLE, UNPLACED, options=force)
    assert password(release)[0] == before and served(release) == uri(release, ONE)
    release.install(EXAMPLE, UNPLACED, {"serving": {"thresholds": {"age": 4}}})
    assert password(release)[0] == before and served(release) == uri(release, ONE)
    release.helm("rollback", "1", *force)
    assert password(release)[0] == before
    variables = release.namespace.get("inferenceservice", release.fullname)["spec"]["transformer"]["containers"][0]
    assert {"name": "CONF_PROFILE_MODEL_URI", "value": uri(release)} in variables["env"]


def test_one_of_argo_cds_keeps_them_too(release, chart_before):
    """It had a new password with each sync; the last one stays, and pruning leaves it alone."""
    documents = [each for each in release.rendered(EXAMPLE, chart=chart_before) if not phase_of(each)]
    release.namespace.apply(*documents)
    before = password(release)[0]
    sync(release)
    assert password(release)[0] == before
    notes = release.namespace.get("secret", f"{release.fullname}-online-store")["metadata"]["annotations"]
    assert notes["argocd.argoproj.io/sync-options"] == "Prune=false"
    assert served(release) == uri(release)
