"""ImageNet-1k as people have it: sorted into class folders, or Kaggle's archive."""

from pathlib import Path

from skd_cache.dataset.dataset import Defaults
from skd_cache.dataset.listing import images_directly_in, subfolders
from skd_cache.errors import InputError

# torchvision's and most papers' recipe for ResNets: 100 epochs, tenfold steps.
DEFAULTS = Defaults(
    size=224,
    policy="rrc-flip",
    eval_resize=256,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    student="resnet18",
    epochs=100,
    batch_size=256,
    lr=0.1,
    weight_decay=1e-4,
    schedule="step",
    milestones=(30, 60, 90),
)
WANTED = "train/ and val/, each with one folder per class (n01440764, …)"
KAGGLE = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
SORT_KAGGLE = (
    "LOC_val_solution.csv from the same archive has the class of each: "
    "cd {val} && tail -n +2 {answers} | while IFS=', ' read -r image class rest; do "
    "mkdir -p $class && mv $image.JPEG $class/; done"
)
SORT = (
    "sort them with valprep.sh of github.com/soumith/imagenetloader.torch, or let "
    'torchvision.datasets.ImageNet(root, split="val") unpack the original archives'
)


def find_splits(data: Path | None) -> dict[str, Path]:
    """The folders of the splits under ``data``, or in Kaggle's place under it.

    Raises:
        InputError: there are none; says where it looked and what layout it wants.
    """
    if data is None:
        raise InputError(f"imagenet needs --data or SKD_CACHE_DATA: a folder with {WANTED}")
    if not data.is_dir():
        raise InputError(f"there is no folder {data}: imagenet wants {WANTED}")
    places = [data, *(data / inside for inside in KAGGLE), data / "imagenet"]
    root = next((place for place in places if (place / "train").is_dir()), None)
    if root is not None:
        return splits_of(root, WANTED)
    if data.name in {"train", "val"} and subfolders(data):
        raise InputError(f"{data} is one split: give the folder above it, {data.parent}")
    if not any(data.iterdir()):
        raise InputError(f"{data} is empty: imagenet wants {WANTED}")
    looked = ", ".join(str(place / "train") for place in places)
    raise InputError(f"no imagenet in {data} (looked for {looked}): it wants {WANTED}")


def splits_of(root: Path, wanted: str) -> dict[str, Path]:
    """``train/`` and, where there is one, ``val/`` of ``root``, both of class folders."""
    splits = {"train": root / "train"}
    if (root / "val").is_dir():
        splits["val"] = root / "val"
    for folder in splits.values():
        if not subfolders(folder):
            raise InputError(_without_classes(folder, wanted))
    return splits


def _without_classes(folder: Path, wanted: str) -> str:
    loose = images_directly_in(folder)
    if not loose:
        return f"{folder} is empty: it wants {wanted}"
    flat = f"{folder} holds {loose:,} images directly and no class folders: it wants {wanted}; "
    answers = [above / "LOC_val_solution.csv" for above in folder.absolute().parents[:4]]
    found = next((file for file in answers if file.is_file()), None)
    if folder.name == "val" and found is not None:
        return flat + SORT_KAGGLE.format(val=folder, answers=found)
    return flat + (SORT if folder.name == "val" else "sort them into one folder per class")
