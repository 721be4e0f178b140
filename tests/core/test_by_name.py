"""What is known of field names is worked out once for each, and takes a bounded place."""

from gateway.core.by_name import LONGEST, MOST, ByName


def test_each_spelling_is_worked_out_once_in_small_letters():
    asked = []
    lengths = ByName(lambda lower: asked.append(lower) or len(lower))
    for _ in range(3):
        assert (lengths["ETag"], lengths["etag"], lengths["Via"]) == (4, 4, 3)
    assert asked == ["etag", "etag", "via"]


def test_what_is_falsy_is_remembered_too():
    asked = []
    nothing = ByName(asked.append)
    assert nothing["a"] is nothing["a"] is None
    assert asked == ["a"]


def test_names_without_end_take_a_bounded_place():
    """Clients choose them."""
    lengths = ByName(len)
    for number in range(3 * MOST):
        assert lengths[f"X-{number}"] == len(f"X-{number}")
        assert len(lengths) <= MOST
    assert lengths["x" * LONGEST] == LONGEST
    assert lengths["x" * (LONGEST + 1)] == LONGEST + 1
    assert ("x" * LONGEST in lengths, "x" * (LONGEST + 1) in lengths) == (True, False)
