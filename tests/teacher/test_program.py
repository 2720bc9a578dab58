"""Programs of torch.export as teachers."""

import io
import json
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn
from torch.export import Dim, export, save
from torchvision.models import VisionTransformer

from skd_cache import models
from skd_cache.errors import InputError
from skd_cache.teacher import weights_digest

GRAPH = "models/model.json"
FREE = ({0: Dim("batch")},)
RAN = "__import__('pathlib').Path('ran').touch()"


def write(path, model, batch=4, dynamic=None, size=16, dtype=torch.float32):
    x = torch.randn(batch, 3, size, size, dtype=dtype)
    save(export(model, (x,), dynamic_shapes=dynamic), path)
    return path


def rewritten(path, changes):
    """The file with entries changed or added by functions of what they hold."""
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    for name, change in changes.items():
        entries[name] = change(entries.get(name, b""))
    other = path.with_name("other.pt2")
    with zipfile.ZipFile(other, "w") as archive:
        for name, data in entries.items():
            archive.writestr(f"model/{name}", data)
    return other


def graph_with(change):
    """A change of the graph's document."""

    def changed(data):
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return {GRAPH: changed}


def refused(load, path, **options):
    with pytest.raises(InputError) as caught:
        load(str(path), **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.fixture
def eager(weights, load):
    return load("resnet20", weights)


@pytest.fixture
def free(network, tmp_path):
    return write(tmp_path / "free.pt2", network, dynamic=FREE)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "dynamic"),
    [(4, FREE), (4, None), (1, None), (3, ({0: Dim("batch", min=3, max=4)},)), (8, None)],
    ids=["free", "fixed", "one", "bounded", "larger"],
)
def test_any_batch_gets_the_logits_of_the_eager_network(
    network, eager, images, tmp_path, load, batch, dynamic
):
    teacher = load(str(write(tmp_path / "net.pt2", network, batch, dynamic)))
    close(teacher.logits(images), eager.logits(images))
    alone = torch.cat([teacher.logits(image[None]) for image in images])
    close(teacher.logits(images), alone)
    assert teacher.logits(images).shape == (5, 10)


def test_the_rows_of_a_fixed_batch_are_bit_for_bit_those_alone(network, images, tmp_path, load):
    teacher = load(str(write(tmp_path / "net.pt2", network, 4)))
    alone = torch.cat([teacher.logits(image[None]) for image in images])
    assert torch.equal(teacher.logits(images), alone)


def test_a_fixed_size_is_the_teacher_s(network, tmp_path, load):
    path = write(tmp_path / "net.pt2", network, size=24)
    assert load(str(path)).size == 24
    assert load(str(path), size=24).size == 24
    assert "exported for images of 24x24 pixels, not 16x16" in refused(load, path, size=16)


def test_a_free_size_is_the_dataset_s_or_what_is_asked_for(network, tmp_path, load):
    sides = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    path = write(tmp_path / "net.pt2", network, dynamic=sides)
    assert load(str(path)).size == 16
    assert load(str(path), size=32).size == 32


def test_half_precision_is_close(free, images, load):
    exact, half = load(str(free)), load(str(free), precision="bfloat16")
    difference = torch.linalg.norm(half.logits(images) - exact.logits(images))
    assert 0 < difference < 0.05 * torch.linalg.norm(exact.logits(images))


def test_it_has_no_class_weight(free, load):
    assert load(str(free)).class_weight is None


def test_the_identity_is_that_of_graph_and_weights(network, eager, free, tmp_path, load):
    first = load(str(free))
    assert first.architecture.startswith("export:")
    assert len(first.architecture) == len("export:") + 16
    assert first.weights == eager.weights == weights_digest(network)
    save(torch.export.load(free), tmp_path / "again.pt2")  # saved twice
    write(tmp_path / "anew.pt2", network, batch=3, dynamic=({0: Dim("b")},))  # exported twice
    for name in ("again.pt2", "anew.pt2"):
        other = load(str(tmp_path / name))
        assert (other.architecture, other.weights) == (first.architecture, first.weights)


def test_the_identity_is_the_same_in_another_process(free, load):
    script = (
        "import sys, torch; from pathlib import Path\n"
        "from skd_cache.teacher.program import load_program\n"
        "print(load_program(Path(sys.argv[1]), torch.device('cpu')).architecture)"
    )
    moved = free.rename(free.with_name("moved.pt2"))
    line = [sys.executable, "-c", script, str(moved)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == load(str(moved)).architecture


class Scaled(nn.Module):
    def __init__(self, network, factor):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x):
        return self.network(x) * self.factor


class Shifted(nn.Module):
    """A constant that is no parameter."""

    def __init__(self, shift):
        super().__init__()
        self.fc = nn.Linear(768, 10)
        self.register_buffer("shift", torch.full((10,), shift), persistent=False)
        nn.init.ones_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        with torch.no_grad():
            return self.fc(x.flatten(1)) + self.shift


def test_another_graph_with_the_same_weights_is_another(network, tmp_path, load):
    paths = [write(tmp_path / f"{f}.pt2", Scaled(network, f), dynamic=FREE) for f in (2.0, 3.0)]
    twice, thrice = (load(str(path)) for path in paths)
    assert twice.weights == thrice.weights
    assert twice.architecture != thrice.architecture


def test_other_constants_are_other_weights(tmp_path, load, images):
    paths = [write(tmp_path / f"{s}.pt2", Shifted(s), dynamic=FREE) for s in (1.0, 2.0)]
    one, two = (load(str(path)) for path in paths)
    assert one.architecture == two.architecture
    assert one.weights != two.weights
    close(two.logits(images) - one.logits(images), torch.ones(5, 10))


def test_its_file_is_found_again_by_what_it_is(network, free, tmp_path, load):
    first = load(str(free))
    again = load(first.architecture, free)
    assert (again.architecture, again.weights) == (first.architecture, first.weights)
    assert "give its .pt2 file as --teacher-weights" in refused(load, first.architecture)
    other = write(tmp_path / "other.pt2", network, batch=4)
    with pytest.raises(InputError, match=r"holds export:.*, not export:"):
        load(first.architecture, other)


def test_weights_beside_a_program_are_refused(free, weights, load):
    with pytest.raises(InputError, match="holds its own weights"):
        load(str(free), weights)


@pytest.mark.parametrize("content", [b"", b"not a program at all" * 9, b"PK\x03\x04" + b"\0" * 64])
def test_a_file_of_something_else_is_refused(tmp_path, load, content):
    (tmp_path / "junk.pt2").write_bytes(content)
    text = refused(load, tmp_path / "junk.pt2")
    assert "cannot be read as a program saved with torch.export.save" in text


def test_a_missing_file_and_a_folder_are_refused(tmp_path, load):
    assert "does not exist" in refused(load, tmp_path / "nowhere.pt2")
    (tmp_path / "folder.pt2").mkdir()
    assert "does not exist" in refused(load, tmp_path / "folder.pt2")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(free, load, share):
    data = free.read_bytes()
    free.write_bytes(data[: int(len(data) * share)])
    assert str(free) in refused(load, free)


@pytest.mark.parametrize("entry", ["data/weights/weight_0", GRAPH, "archive_version"])
def test_a_file_that_lacks_an_entry_is_refused(free, load, entry):
    with zipfile.ZipFile(free) as archive, zipfile.ZipFile(free.with_name("o.pt2"), "w") as other:
        for name in archive.namelist():
            if not name.endswith(entry):
                other.writestr(name, archive.read(name))
    assert "o.pt2" in refused(load, free.with_name("o.pt2"))


def test_a_state_dict_is_no_program(network, tmp_path, load):
    torch.save(network.state_dict(), tmp_path / "state.pt2")
    assert "cannot be read as a program" in refused(load, tmp_path / "state.pt2")


def test_other_classes_are_refused(tmp_path, load):
    path = write(tmp_path / "net.pt2", models.create("resnet20", num_classes=7).eval())
    assert "knows 7 classes; the dataset has 10" in refused(load, path)


class Two(nn.Module):
    def forward(self, x, y):
        return (x + y).flatten(1)[:, :10]


class Pair(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10], x


class Named(nn.Module):
    def forward(self, x):
        return {"logits": x.flatten(1)[:, :10]}


def test_several_inputs_or_outputs_are_refused(tmp_path, load):
    x = torch.randn(2, 3, 16, 16)
    save(export(Two(), (x, x)), tmp_path / "two.pt2")
    assert "maps 2 input(s) to 1 output(s)" in refused(load, tmp_path / "two.pt2")
    assert "maps 1 input(s) to 2 output(s)" in refused(
        load, write(tmp_path / "pair.pt2", Pair(), 2)
    )
    assert "gives a dict" in refused(load, write(tmp_path / "named.pt2", Named(), 2))


def test_other_images_are_refused(tmp_path, load):
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    network(torch.zeros(1, 3, 16, 16))
    path = write(tmp_path / "double.pt2", network.double(), dtype=torch.float64)
    assert "takes [4, 3, 16, 16] float64, not images [B, 3, S, S] float32" in refused(load, path)
    for name, shape in (("flat", (4, 768)), ("grey", (4, 1, 16, 48)), ("wide", (4, 3, 8, 32))):
        save(export(network.float(), (torch.randn(shape),)), tmp_path / f"{name}.pt2")
        assert "not images [B, 3, S, S] float32" in refused(load, tmp_path / f"{name}.pt2")


class Updating(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen.add_(1)
        return x.flatten(1)[:, :10] * self.seen


class Noisy(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10] + torch.rand(10)


def test_what_changes_from_time_to_time_is_refused(network, tmp_path, load):
    dropping = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(768, 10))
    for name, model in (("train", network.train()), ("drop", dropping), ("noise", Noisy())):
        path = write(tmp_path / f"{name}.pt2", model)
        assert "training mode" in refused(load, path)
        program = torch.export.load(path).run_decompositions()
        save(program, tmp_path / f"{name}-core.pt2")
        assert "training mode" in refused(load, tmp_path / f"{name}-core.pt2")
    program = export(Updating(), (torch.randn(4, 3, 16, 16),)).run_decompositions()
    save(program, tmp_path / "updating.pt2")
    assert "training mode" in refused(load, tmp_path / "updating.pt2")
    assert load(str(write(tmp_path / "eval.pt2", dropping.eval()))).size == 16


def test_a_decomposed_program_gives_the_same_logits(free, eager, images, tmp_path, load):
    save(torch.export.load(free).run_decompositions(), tmp_path / "core.pt2")
    close(load(str(tmp_path / "core.pt2")).logits(images), eager.logits(images))


def first_node(document):
    return document["graph_module"]["graph"]["nodes"][0]


def change_operator(to):
    return graph_with(lambda document: first_node(document).update(target=to))


def change_size(to):
    def change(document):
        values = document["graph_module"]["graph"]["tensor_values"]
        values["x"]["sizes"][0] = {"as_expr": {"expr_str": to, "hint": None}}

    return graph_with(change)


def hide_size(document):
    sizes = [{"as_expr": {"expr_str": RAN, "hint": None}}]
    document["graph_module"]["graph"]["tensor_values"]["metadata"] = {"sizes": sizes}


def change_input(document):
    specs = document["graph_module"]["signature"]["input_specs"]
    specs[-1]["user_input"]["arg"]["as_tensor"]["name"] = f"x={RAN}"


def change_tree(document):
    spec = document["graph_module"]["module_call_graph"][0]["signature"]
    tree = {"type": "collections.defaultdict", "context": "{}", "children_spec": []}
    spec["out_spec"] = json.dumps([1, tree])


def change_weights(data):
    document = json.loads(data)
    next(iter(document["config"].values()))["use_pickle"] = True
    return json.dumps(document).encode()


class Runs:
    def __reduce__(self):
        return exec, (RAN,)


def pickled(_):
    buffer = io.BytesIO()
    torch.save(Runs(), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (change_operator("torch.hub.load"), "the operator 'torch.hub.load'"),
        (change_operator("torch.ops.aten.from_file.default"), "the operator"),
        (change_operator("_operator.methodcaller"), "the operator"),
        (change_operator("torch.ops.aten.conv2d.default.__class__"), "the operator"),
        (change_operator("#mine:op"), "the operator"),
        (change_operator("torchish.hub.load"), "the operator"),
        (change_operator("open"), "the operator"),
        (graph_with(hide_size), "the size"),
        (change_size(RAN), "the size"),
        (change_size("Symbol('__import__')"), "the size"),
        (change_size("(lambda: 3)()"), "the size"),
        (change_size("S.One.__class__"), "the size"),
        (graph_with(change_input), "the name"),
        (graph_with(change_tree), "inputs or outputs of other types"),
        ({"data/weights/model_weights_config.json": change_weights}, "not stored as plain bytes"),
        ({"data/sample_inputs/model.pt": pickled}, "sample inputs"),
        ({"data/constants/opaque_obj_0": lambda _: pickle.dumps(Runs())}, "opaque_obj_0"),
        ({"data/constants/model.pt": pickled}, "data/constants/model.pt"),
        ({"data/weights/model.pt": pickled}, "data/weights/model.pt"),
        ({"data/aotinductor/model/net.so": lambda _: b"\x7fELF"}, "net.so"),
        ({"models/other.json": lambda _: b"{}"}, "models/other.json"),
    ],
    ids=str,
)
def test_what_could_run_code_is_refused(free, load, changes, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = rewritten(free, changes)
    text = refused(load, path)
    assert says in text
    assert "could run code" in text
    assert not (tmp_path / "ran").exists()


def test_guards_of_a_file_are_never_run(free, load, tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    path = rewritten(free, graph_with(lambda document: document.update(guards_code=[RAN])))
    assert torch.equal(load(str(path)).logits(images), load(str(free)).logits(images))
    assert not (tmp_path / "ran").exists()


def test_a_program_with_attention_passes(tmp_path, load, images):
    network = VisionTransformer(16, 4, 1, 2, 32, 64, num_classes=10).eval()
    teacher = load(str(write(tmp_path / "vit.pt2", network, dynamic=FREE)))
    assert teacher.logits(images).shape == (5, 10)
