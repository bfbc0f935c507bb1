from dataclasses import dataclass, field

import pytest

from pdelab.config import build, parse_assignments, read_mapping, read_yaml
from pdelab.errors import SettingsError, check_range


@dataclass(frozen=True)
class Toy:
    """Settings of every kind."""

    width: int = 3
    rate: float = 0.1
    name: str = "a"
    sizes: tuple[int, ...] = field(default_factory=tuple)
    inner: float | None = None

    def __post_init__(self):
        check_range("rate", self.rate, above=0.0)


def test_values_get_the_types_of_the_settings():
    made = build(Toy, parse_assignments(["width=5", "rate=1e-3", "name=b", "sizes=[1, 2]", "inner=2"]))
    assert made == Toy(5, 1e-3, "b", (1, 2), 2.0)


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("-2E+2", -200.0), (".5e1", 5.0), ("1.5", 1.5), ("7", 7)])
def test_numbers(text, value):
    assert parse_assignments([f"k={text}"]) == {"k": value}


def test_a_value_may_hold_an_equals_sign():
    assert parse_assignments(["k=a=b"]) == {"k": "a=b"}


@pytest.mark.parametrize(
    "pair, message",
    [
        ("widht=3", "no setting 'widht'; did you mean 'width'"),
        ("qqq=3", "known: width, rate, name, sizes, inner"),
        ("width=x", "width='x'.*integer"),
        ("width=1.5", "width=1.5.*integer"),
        ("rate=-1", "rate: expected a number > 0"),
        ("rate=.nan", "rate: expected a number > 0.0, got nan"),
        ("rate=.inf", "rate: expected a finite number > 0.0, got inf"),
        ("width", "expected key=value, got 'width'"),
        ("=3", "expected key=value"),
        ("width=[1", "width: cannot be read as YAML"),
        ("width=!!python/object/apply:os.system [ls]", "tags are not read"),
        ("width=!!int 3", "tags are not read"),
    ],
)
def test_what_is_wrong_is_named(pair, message):
    with pytest.raises(SettingsError, match=message):
        build(Toy, parse_assignments([pair]))


def test_tags_run_no_code(tmp_path):
    marker = tmp_path / "ran"
    with pytest.raises(SettingsError, match="tags"):
        read_yaml(f"a: !!python/object/apply:pathlib.Path.touch [{marker}]", "file")
    assert not marker.exists()


def test_read_mapping(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("problem: burgers\nseed: 3\n")
    assert read_mapping(path, ["problem", "seed"]) == {"problem": "burgers", "seed": 3}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"problme: x", "no key 'problme'; did you mean 'problem'"),
        (b"- 1", "expected lines 'key: value', got list"),
        (b"", "got NoneType"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a: [", "cannot be read as YAML"),
        (b"problem: !x y", "tags are not read"),
        (b"3: x", "no key 3"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="bad.yaml") as caught:
        read_mapping(path, ["problem", "seed"])
    assert caught.match(message)


def test_a_missing_file(tmp_path):
    with pytest.raises(SettingsError, match="absent.yaml: cannot be read"):
        read_mapping(tmp_path / "absent.yaml", ["problem"])


@pytest.mark.parametrize("value", [True, False])
def test_yes_and_no_are_no_numbers(value):
    from pdelab.solvers.pinn import PINN

    with pytest.raises(SettingsError, match="width=.*expected a number"):
        build(PINN, {"width": value})
