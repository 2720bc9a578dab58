"""Where teachers come from, and what is said when they do not."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from skd_cache import models
from skd_cache.errors import InputError
from skd_cache.teacher import weights_digest
from skd_cache.teacher.published import load_published, published_weights

FACTORIES = """
import torch
from torch import nn

def random(num_classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(768, num_classes))

def filled(num_classes=10):
    model = random(num_classes)
    nn.init.ones_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    model.pretrained_cfg = {
        "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "input_size": (3, 16, 16),
    }
    return model

def thousand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 1000))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model

class Twice(nn.Module):
    def forward(self, x):
        return x, x

def pair():
    return Twice()

def flat():
    return nn.Flatten(start_dim=0)
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    """A module of factories, importable under the name given back."""
    name = f"factories_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """Where torchvision finds a resnet18 that it need not download; the network in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = torchvision.models.resnet18()
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return model


def refused(load, *arguments, **options):
    """The sentence with which it is refused."""
    with pytest.raises(InputError) as caught:
        load(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_published_weights_bring_their_size_normalisation_and_accuracy(downloads, load):
    teacher = load("resnet18", classes=1000, default_size=64)
    assert teacher.weights == weights_digest(downloads)
    assert (teacher.size, teacher.resize) == (224, 256)
    assert (teacher.mean, teacher.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert teacher.published_top1 == pytest.approx(0.69758)
    assert teacher.published_dataset == "ImageNet-1K"
    assert teacher.class_weight.shape == (1000, 512)


def test_a_published_name_may_be_given(downloads, load):
    named = load("resnet18", "IMAGENET1K_V1", classes=1000, size=64)
    assert (named.weights, named.size) == (weights_digest(downloads), 64)


def test_the_default_of_the_published_weights_comes_first():
    assert published_weights("resnet152") == ["IMAGENET1K_V2", "IMAGENET1K_V1"]
    assert published_weights("wrn_16_2") == ["demo"]
    assert published_weights("timm/resnet18.tv_in1k")[0] == "tv_in1k"
    assert "a1_in1k" in published_weights("timm/resnet18")
    assert published_weights("resnet20") == []


def test_published_weights_for_other_classes_are_refused_before_any_download(load):
    text = refused(load, "resnet152", classes=10)
    assert "resnet152 with IMAGENET1K_V2 knows 1000 classes; the dataset has 10" in text
    assert "knows 1000 classes" in refused(load, "timm/resnet18", classes=10)


def test_a_failed_download_names_the_file_and_where_to_put_it(tmp_path):
    script = (
        "from skd_cache.errors import InputError\n"
        "from skd_cache.teacher.published import load_published\n"
        "try: load_published('resnet18', 'IMAGENET1K_V1', 1000)\n"
        "except InputError as error: print(error)\n"
    )
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"TORCH_HOME": str(tmp_path), "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert "cannot be downloaded" in done.stdout
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth by hand" in done.stdout
    assert str(tmp_path / "hub" / "checkpoints") in done.stdout
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.usefixtures("downloads")
def test_a_damaged_download_is_refused_with_a_sentence(tmp_path, load):
    (path,) = tmp_path.rglob("resnet18-*.pth")
    path.write_bytes(path.read_bytes()[:1000])
    assert "resnet18" in refused(load, "resnet18", classes=1000)


def test_a_file_may_say_what_was_measured(network, tmp_path, load):
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path, {"top1": "94.1", "dataset": "fashion-mnist"})
    teacher = load("resnet20", path)
    assert teacher.published_top1 == pytest.approx(0.941)
    assert teacher.published_dataset == "fashion-mnist"


def test_weights_from_a_file_are_fed_as_the_dataset_says(weights, load):
    teacher = load("resnet20", weights)
    assert (teacher.mean, teacher.std, teacher.size) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 16)
    assert (teacher.published_top1, teacher.resize) == (None, None)


def test_a_timm_network_takes_weights_from_a_file(tmp_path, load):
    import timm

    model = timm.create_model("resnet10t", num_classes=10)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    teacher = load("timm/resnet10t", tmp_path / "weights.safetensors", size=32)
    assert teacher.weights == weights_digest(model)
    assert teacher.mean == (0.4, 0.5, 0.6)  # trained on these ten classes, not timm's thousand


def test_a_timm_network_of_timms_classes_is_fed_as_timm_does(tmp_path, load):
    import timm

    model = timm.create_model("vit_tiny_patch16_224")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    teacher = load("timm/vit_tiny_patch16_224", tmp_path / "weights.safetensors", classes=1000)
    assert (teacher.size, teacher.mean) == (224, (0.5, 0.5, 0.5))


def test_a_factory_may_fill_its_network_and_say_how_to_feed_it(factories, load):
    teacher = load(f"{factories}:filled", default_size=8)
    assert (teacher.size, teacher.mean) == (16, (0.5, 0.5, 0.5))
    assert teacher.architecture == f"{factories}:filled"


def test_a_factory_that_leaves_weights_to_chance_needs_a_file(factories, tmp_path, load):
    assert "at random: give --teacher-weights" in refused(load, f"{factories}:random")
    state = {"1.weight": torch.ones(10, 768), "1.bias": torch.zeros(10)}
    torch.save(state, tmp_path / "weights.pt")
    assert load(f"{factories}:random", tmp_path / "weights.pt").class_weight.shape == (10, 768)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("thousand", "knows 1000 classes; the dataset has 10"),
        ("pair", "gives a tuple, not a tensor of logits"),
        ("flat", "gives [1536] for two images, not logits [2, 10]"),
        ("fillet", "nearest: filled"),
    ],
)
def test_a_factory_whose_network_is_no_classifier_is_refused(factories, load, factory, says):
    assert says in refused(load, f"{factories}:{factory}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet57", "nearest: resnet56"),
        ("timm/resnet10x", "nearest: timm/resnet10t"),
        ("no_such_module:net", "cannot be imported"),
        ("resnet20", "No weights are published for 'resnet20': give --teacher-weights a file"),
    ],
)
def test_an_unknown_teacher_or_one_without_weights_is_refused(load, name, says):
    assert says in refused(load, name)


@pytest.mark.parametrize(
    ("name", "weights", "says"),
    [
        ("resnet152", "IMAGENET1K_V3", "published for resnet152: IMAGENET1K_V2, IMAGENET1K_V1"),
        ("resnet20", "missing.pt", "neither a file nor a published name (none are published"),
        ("resnet99", "missing.pt", "No network is called 'resnet99'"),
    ],
)
def test_unknown_weights_are_refused(load, name, weights, says):
    assert says in refused(load, name, weights)


def test_weights_of_another_number_of_classes_are_refused(weights, load):
    text = refused(load, "resnet20", weights, classes=7)
    assert text.endswith("are for 10 classes; the dataset has 7.")


def test_weights_that_do_not_fit_name_the_first_difference(network, tmp_path, load):
    def complaint(state):
        torch.save(state, tmp_path / "weights.pt")
        return refused(load, "resnet20", tmp_path / "weights.pt")

    state = dict(network.state_dict())
    shorn = {name: value for name, value in state.items() if name != "fc.bias"}
    assert "'fc.bias' is missing" in complaint(shorn)
    assert "'extra' is not in the network" in complaint(state | {"extra": torch.ones(1)})
    reshaped = complaint(state | {"conv1.weight": torch.ones(16, 1, 3, 3)})
    assert "'conv1.weight' is 16x1x3x3 where 16x3x3x3 is needed" in reshaped
    other = complaint(models.create("wrn_16_2", num_classes=10).state_dict())
    assert "'layer1.0.bn1.bias' is missing" in other
    assert "'block1.layer.0.bn1.bias' is not in the network" in other


def test_old_weights_without_batch_counts_load(network, tmp_path, load):
    state = {k: v for k, v in network.state_dict().items() if "num_batches_tracked" not in k}
    torch.save(state, tmp_path / "weights.pt")
    assert load("resnet20", tmp_path / "weights.pt").weights == weights_digest(network)


def test_a_training_scripts_arguments_beside_the_weights_do_no_harm(network, tmp_path, load):
    arguments = argparse.Namespace(lr=0.1, model="resnet20")
    torch.save({"opt": arguments, "model": network.state_dict()}, tmp_path / "ckpt.pth")
    assert load("resnet20", tmp_path / "ckpt.pth").weights == weights_digest(network)


class Payload:
    """Unpickled without care, it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, load):
    torch.save({"state_dict": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    assert "could run code" in refused(load, "resnet20", tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["junk.pt", "junk.safetensors", "empty.pt", "empty.safetensors"])
def test_a_file_of_something_else_is_refused(tmp_path, load, name):
    (tmp_path / name).write_bytes(b"" if "empty" in name else b"not weights at all" * 9)
    assert name in refused(load, "resnet20", tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, {"model": {"a": "b"}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path, load, content):
    torch.save(content, tmp_path / "other.pt")
    assert "holds no state_dict" in refused(load, "resnet20", tmp_path / "other.pt")


def test_a_folder_is_no_weights_file(tmp_path, load):
    assert str(tmp_path) in refused(load, "resnet20", tmp_path)


def test_a_size_the_network_cannot_take_is_refused(tmp_path, load):
    model = torchvision.models.squeezenet1_1(num_classes=10)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    text = refused(load, "squeezenet1_1", tmp_path / "weights.pt", size=8)
    assert "'squeezenet1_1' cannot look at 8x8 images in float32 on cpu" in text


def test_an_unknown_precision_or_device_is_refused(weights, load):
    text = refused(load, "resnet20", weights, precision="float8")
    assert "float32, bfloat16, float16" in text
    text = refused(load, "resnet20", weights, device="cuda:99")
    assert "there is no 'cuda:99' here: torch" in text
    assert "sees" in text
    assert "'warp'" in refused(load, "resnet20", weights, device="warp")


def test_the_demo_weights_have_their_place_beside_the_code():
    """They are read like any other file; the class count is checked before anything else is."""
    with pytest.raises(InputError, match="wrn_16_2-fashion-mnist"):
        load_published("wrn_16_2", "demo", 7)


def test_torchs_metadata_survives_unwrapping(tmp_path, load):
    """MNASNet reads from it which of two stems its weights are for."""
    model = torchvision.models.mnasnet0_5(num_classes=10)
    state = torch.nn.DataParallel(model).state_dict()
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    assert load("mnasnet0_5", tmp_path / "weights.pt", size=32).weights == weights_digest(model)
    assert json.dumps(sorted(state)[0]).startswith('"module.')
