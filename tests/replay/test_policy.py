import pytest

from skd_cache.errors import InputError
from skd_cache.replay import Policy, load_policy, policy_names


@pytest.mark.parametrize("name", policy_names())
def test_a_named_policy_survives_its_manifest(name):
    policy = load_policy(name)
    assert Policy.from_dict(policy.to_dict()) == policy


def test_a_file_configures_crops(tmp_path):
    path = tmp_path / "skd.toml"
    path.write_text('crop = "rrc"\nflip = true\nscale = [0.1, 1]\nratio = [0.8, 1.25]\n')
    policy = load_policy(str(path))
    assert policy == Policy("rrc", True, scale=(0.1, 1.0), ratio=(0.8, 1.25))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('crop = "rcc"', "crop is one of"),
        ("flips = true", "did you mean flip?"),
        ("flip = 1", "flip is a bool"),
        ("scale = 0.5", "scale is two numbers"),
        ("scale = [0.9, 0.1]", "smallest <= largest"),
        ("ratio = [0, 1]", "ratio is 0 <"),
        ("padding = -1", "padding is 0 to 1024"),
        ('interpolation = "area"', "interpolation is one of"),
        ("crop = ", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path, text, says):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        load_policy(str(path))
    assert "wrong.toml" in str(caught.value)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean rrc-flip"):
        load_policy("rrc-flp")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        load_policy(str(tmp_path / "nowhere.toml"))
