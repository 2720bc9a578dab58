"""A student trains from what somebody else exported."""

from pathlib import Path

from tests.end_to_end.conftest import Desk


def test_an_imported_cache_is_replayed(built: Desk):
    (cache,) = (path for path in built.home.iterdir() if len(path.name) == 16)
    for to in ("hdf5", "topk"):
        file = built.folder / f"{to}.h5"
        done = built.call("export", cache.name, "--to", to, "-o", file)
        assert done.code == 0, done.err
        done = built.call("import", file, "--out", built.folder / "others")
        assert done.code == 0, done.err
        out = built.folder / f"run-{to}"
        run = built.distill(
            *("--loss", "kd", "--cache", Path(done.out), "--out", out), run=built.call
        )
        assert run.code == 0, run.err
        assert (out / "student.safetensors").exists()
