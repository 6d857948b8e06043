"""Bend EC2's answers: first their elements, then their text and bytes.

Elements are changed in the parsed document, so that most mutations are still
XML and reach the code behind the SDK's parser; then, more rarely, the text is
broken as a network, a proxy or a wrong character set would break it.
"""

from collections.abc import Callable
from copy import deepcopy
from random import Random
from xml.etree import ElementTree as ET

from reconciler.testing.endpoint import NAMESPACE

ET.register_namespace("", NAMESPACE)

_HOSTILE = (
    *("", " ", "\n", "-", "null", "None", "true", "false", "-1", "0", "1", "1e999", "NaN"),
    *("9" * 5000, "x" * 5000, "\u202e", "\u0661\u0660.0.0.1", "10.0.0.30\u00a0"),
    *("0.0.0.0", "255.255.255.255", "999.1.1.1", "10.0.0", "010.0.0.30", "10.0.0.30 ", "::"),  # noqa: S104
    *("10.0.0.31", "10.0.0.30", "2001:db8::30", "2001:DB8:0::31", "::ffff:10.0.0.30", "fe80::1%1"),
    *("0.0.0.0/0", "::/0", "255.255.255.255/32", "10.0.0.0/24", "10.0.0.65/28", "10.0.0.0/8"),
    *("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "10.0.0.16/28", "10.0.0.16/0.0.0.15"),
    *("10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "/", "10.0.0.0/24/24"),
    *("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00", "02:00:00:00:00:05:06:07"),
    *("020000000005", "02-00-00-00-00-05", "0200.0000.0005", "02:00:00:00:00:0G"),
    *("02:00:00:00:00:05", "02:00:00:00:0F:01", " 02:00:00:00:00:05 "),
    *("in-use", "IN-USE", " in-use", "available", "attaching", "detaching", "associated"),
    *("interface", "nat_gateway", "eni-0", "subnet-0", "111122223333", "999988887777"),
)
_NAMESPACES = ("", "http://ec2.amazonaws.com/doc/2013-10-15/", "urn:x")
_ENTITY = b'<!DOCTYPE r [<!ENTITY a "10.0.0.31"><!ENTITY b "&a;&a;">]>'
_CODES = (
    *("RequestLimitExceeded", "InternalError", "UnauthorizedOperation", "RequestExpired"),
    *("AuthFailure", "InvalidNextToken", "", "What?"),
)

Place = tuple[ET.Element, int]


def _places(root: ET.Element) -> list[Place]:
    """List every element but the root by its parent and its position there."""
    return [(parent, at) for parent in root.iter() for at in range(len(parent))]


def _drop(rng: Random, root: ET.Element, places: list[Place]) -> None:
    del root, rng
    parent, at = places[0]
    del parent[at]


def _double(rng: Random, root: ET.Element, places: list[Place]) -> None:
    del root
    parent, at = places[0]
    parent.insert(rng.randint(0, len(parent)), deepcopy(parent[at]))


def _double_and_change(rng: Random, root: ET.Element, places: list[Place]) -> None:
    items = [(p, at) for p, at in _places(root) if p[at].tag.endswith("item")]
    parent, at = rng.choice([*items, places[0]])
    copy = deepcopy(parent[at])
    parent.insert(rng.randint(0, len(parent)), copy)
    inner = [element for element in copy.iter() if not len(element)]
    if inner:
        rng.choice(inner).text = rng.choice([*_texts(root), *_HOSTILE])


def _swap(rng: Random, root: ET.Element, places: list[Place]) -> None:
    del rng, root
    (one, i), (two, j) = places[:2]
    if two not in one[i].iter() and one not in two[j].iter():
        one[i], two[j] = two[j], one[i]


def _move(rng: Random, root: ET.Element, places: list[Place]) -> None:
    parent, at = places[0]
    moved = parent[at]
    del parent[at]
    target = rng.choice(list(root.iter()))
    target.insert(rng.randint(0, len(target)), moved)


def _copy_over(rng: Random, root: ET.Element, places: list[Place]) -> None:
    """Say in one place what another place of the same name says: doubled ids, foreign MACs."""
    parent, at = places[0]
    same = [element for element in root.iter(parent[at].tag) if element is not parent[at]]
    if same:
        parent[at] = deepcopy(rng.choice(same))


def _rename(rng: Random, root: ET.Element, places: list[Place]) -> None:
    parent, at = places[0]
    tags = {element.tag for element in root.iter()}
    parent[at].tag = rng.choice([*sorted(tags), "x", parent[at].tag.lower()])


def _renamespace(rng: Random, root: ET.Element, places: list[Place]) -> None:
    parent, at = places[0]
    space = rng.choice(_NAMESPACES)
    for element in rng.choice((root, parent[at])).iter():
        name = element.tag.rpartition("}")[2]
        element.tag = f"{{{space}}}{name}" if space else name


def _wrap(rng: Random, root: ET.Element, places: list[Place]) -> None:
    del rng, root
    parent, at = places[0]
    wrapper = ET.Element(places[-1][0].tag)
    wrapper.append(parent[at])
    parent[at] = wrapper


def _unwrap(rng: Random, root: ET.Element, places: list[Place]) -> None:
    del rng, root
    parent, at = places[0]
    parent[at : at + 1] = list(parent[at])


def _empty(rng: Random, root: ET.Element, places: list[Place]) -> None:
    del rng, root
    parent, at = places[0]
    parent[at][:] = []
    parent[at].text = None


def _say(rng: Random, root: ET.Element, places: list[Place]) -> None:
    parent, at = next((p for p in places if not len(p[0][p[1]])), places[0])
    parent[at].text = rng.choice(_HOSTILE if rng.random() < 0.7 else _texts(root))


def _texts(root: ET.Element) -> list[str]:
    return sorted({element.text or "" for element in root.iter()})


_TO_THE_TREE: tuple[Callable[[Random, ET.Element, list[Place]], None], ...] = (
    *(_drop, _double, _double_and_change, _swap, _move, _copy_over, _rename),
    *(_renamespace, _wrap, _unwrap, _empty, _say, _say, _say, _say),
)


def _spoil(rng: Random, body: bytes) -> bytes:
    return rng.choice((_break, _rewrite, _replace))(rng, body)


def _break(rng: Random, body: bytes) -> bytes:
    """Cut, skip, repeat or garble, as a bad connection does."""
    at, to = sorted(rng.randint(0, len(body)) for _ in range(2))
    return rng.choice(
        (
            body[:at],
            body[:at] + body[to:],
            body[:to] + body[at:],
            body[:at] + rng.randbytes(rng.randint(1, 4)) + body[at + 1 :],
            rng.choice((b"\n", b"\0", b"{}", b"<r/>")) + body,
            body + rng.choice((b"\n", b"\0", b"</r>", body)),
        )
    )


def _rewrite(rng: Random, body: bytes) -> bytes:
    """Say the same, or nearly, with other means of XML."""
    name = rng.choice((b"utf-16", b"latin-1", b"ascii", b"cp037", b"shift_jis", b"x"))
    head, mark, rest = body.partition(b"?>")
    entity = rest.replace(b"10.0.0.30", rng.choice((b"&a;", b"&b;")))
    return rng.choice(
        (
            body.replace(b"UTF-8", name),
            body.decode(errors="replace").encode(rng.choice(("utf-16", "utf-8-sig"))),
            head + mark + _ENTITY + entity,
            body.replace(b"10.0.0.30", b"<![CDATA[10.0.0.30]]>"),
            body.replace(b"10.0.0.3", b"10.0.<!-- -->0.3"),
            body.replace(b"<item>", b"<item>" * 200, 1),
        )
    )


def _replace(rng: Random, body: bytes) -> bytes:
    """Answer something else altogether."""
    del body
    nothing = (b"", b"{}", b"null", b"<html><body>Sign in</body></html>", b"<r/>")
    return rng.choice((*nothing, refusal(rng)))


def refusal(rng: Random) -> bytes:
    """Write an error document, well or badly."""
    error = f"<Error><Code>{rng.choice(_CODES)}</Code><Message>m</Message></Error>"
    shapes = (
        f"<Errors>{error}</Errors>",
        f"<Errors>{error}{error}</Errors>",
        f"<Errors/><Errors>{error}</Errors>",
        error,
        "<Errors><Error><Code><a/></Code></Error></Errors>",
        "<Errors>x</Errors>",
        "<Errors><Error>x</Error></Errors>",
        "<Errors><Error><Code>a</Code><Code>b</Code></Error></Errors>",
    )
    return f"<Response>{rng.choice(shapes)}<RequestID>r</RequestID></Response>".encode()


def mutate(rng: Random, body: bytes) -> bytes:
    """Bend one honest answer in one to four places."""
    if rng.random() < 0.25:
        return _spoil(rng, body)
    root = ET.fromstring(body)  # noqa: S314 - the test's own text.
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = _places(root)
        if not places:
            break
        rng.choice(_TO_THE_TREE)(rng, root, rng.choices(places, k=3))
    text = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
    return _spoil(rng, text) if rng.random() < 0.05 else text


__all__ = ["mutate", "refusal"]
