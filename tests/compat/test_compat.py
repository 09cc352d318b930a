"""Old spellings work for one release, and every warning names the new one."""

import copy
import inspect
import pickle
import warnings
from dataclasses import KW_ONLY, dataclass, field, replace

import pytest

import icgn
from icgn.compat import keyword_only, moved


@keyword_only
def scaled(x, *, factor=2, offset=0):
    """Scale."""
    return factor * x + offset


class Scale:
    @keyword_only
    def __init__(self, factor, *, offset=0):
        self.factor, self.offset = factor, offset

    @keyword_only
    def apply(self, x, *, again=0):
        return self.factor * x + self.offset + again


@keyword_only
class Plain:
    def __init__(self, factor, *, offset=0):
        self.factor, self.offset = factor, offset


@keyword_only
@dataclass(frozen=True)
class Setting:
    first: int
    _: KW_ONLY
    second: int = 2
    third: list = field(default_factory=list)


def test_keywords_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scaled(3) == 6
        assert scaled(3, factor=3, offset=1) == 10
        assert Scale(2, offset=1).apply(3, again=4) == 11
        assert Plain(factor=2, offset=1).offset == 1
        assert replace(Setting(1, second=3), third=[4]) == Setting(first=1, second=3, third=[4])


@pytest.mark.parametrize(
    ("call", "expected", "written"),
    [
        (lambda: scaled(3, 4), 12, "scaled: write factor=...;"),
        (lambda: scaled(3, 4, 5), 17, "scaled: write factor=..., offset=...;"),
        (lambda: scaled(3, 4, offset=5), 17, "scaled: write factor=...;"),
        (lambda: Scale(2, 1).offset, 1, "Scale.__init__: write offset=...;"),
        (lambda: Scale(2).apply(3, 4), 10, "Scale.apply: write again=...;"),
        (lambda: Plain(2, 1).offset, 1, "Plain.__init__: write offset=...;"),
        (lambda: Setting(1, 3, [4]).third, [4], "Setting.__init__: write second=..., third=...;"),
    ],
)
def test_positions_work_and_the_warning_names_the_keywords(call, expected, written):
    with pytest.warns(FutureWarning, match=written.replace(".", r"\.")) as record:
        assert call() == expected
    assert record[0].filename == __file__, "the warning points at the call"


def test_what_no_signature_allows_is_refused():
    with pytest.raises(TypeError, match="positional"):
        scaled(1, 2, 3, 4)
    with pytest.warns(FutureWarning), pytest.raises(TypeError, match="multiple values"):
        scaled(1, 2, factor=3)
    with pytest.raises(TypeError, match="missing"):
        scaled()


def test_signature_documentation_and_copies_stay():
    assert str(inspect.signature(scaled)) == "(x, *, factor=2, offset=0)"
    assert scaled.__doc__ == "Scale." and scaled.__name__ == "scaled"
    assert list(inspect.signature(Setting).parameters) == ["first", "second", "third"]
    assert isinstance(Plain, type) and isinstance(Setting, type)
    for setting in (copy.deepcopy(Setting(1, second=3)), pickle.loads(pickle.dumps(Setting(1, second=3)))):
        assert setting == Setting(1, second=3)


def test_moved_names():
    find = moved("here", {"solve": "icgn.solvers"})
    with pytest.warns(FutureWarning, match=r"here\.solve is icgn\.solvers\.solve now"):
        assert find("solve") is icgn.solve
    with pytest.raises(AttributeError, match="module 'here' has no attribute 'slove'"):
        find("slove")


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("icgn.regularizers", "denoise", "icgn.pictures"),
        ("icgn.regularizers", "DenseRidgeICGN", "icgn.transport"),
        ("icgn.training", "evaluate", "icgn.evaluation"),
    ],
)
def test_names_that_users_may_have(old, name, new):
    with pytest.warns(FutureWarning, match=f"{new}.{name} now"):
        found = getattr(icgn.__getattr__(old.split(".")[1]), name)
    assert found is getattr(icgn.__getattr__(new.split(".")[1]), name)
