# ruff: noqa: DTZ001 - columns have no time zone
"""Statements of every kind, for running through our client and through SQLAlchemy's own engine."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    column,
    delete,
    desc,
    distinct,
    exists,
    extract,
    false,
    func,
    insert,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    text,
    true,
    tuple_,
    type_coerce,
    union,
    union_all,
    update,
    values,
)
from sqlalchemy.dialects import mysql, sqlite


class Role(enum.Enum):
    """A Python enum that is stored by name."""

    ADMIN = "the admin"
    USER = "a user"


class Tags(TypeDecorator[Any]):
    """A list of words that is stored as text."""

    impl = String(200)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """To the database."""
        return None if value is None else "|".join(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """From the database."""
        return None if value is None else value.split("|")


METADATA = MetaData()

USER = Table(
    "user%s",  # a name that needs quoting, with what looks like a placeholder
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), nullable=False),
    Column("email", String(100)),
    Column("age", Integer),
    Column("score", Numeric(10, 2)),
    Column("ratio", Float),
    Column("active", Boolean),
    Column("born", Date),
    Column("seen", DateTime),
    Column("wake", Time),
    Column("prefs", JSON),
    Column("role", Enum(Role)),
    Column("avatar", LargeBinary),
    Column("note", Text),
    Column("tags", Tags),
    Column("token", Uuid),
)
ORDER = Table(
    "order",  # a reserved word
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("user_id", ForeignKey(USER.c.id)),
    Column("amount", Integer, default=7),
    Column("state", String(20), default=lambda: "new", onupdate="touched"),
    Column(
        "label", String(40), default=lambda context: f"for {context.get_current_parameters().get('user_id')}"
    ),
    Column("twice", Integer, default=select(literal(21) * 2).scalar_subquery(), onupdate=func.abs(-5)),
    Column("weird % name", Integer, key="weird"),
)
KEYED = Table(
    "keyed",
    METADATA,
    Column("id", String(20), primary_key=True, default=func.lower("KEY-ONE")),
    Column("n", Integer, server_default="11"),
)

PEOPLE: list[dict[str, Any]] = [
    {
        "id": n,
        "name": f"name{n}",
        "email": None if n % 3 == 0 else f"n{n}@example.org",
        "age": 20 + n % 5,
        "score": Decimal(n) / 4,
        "ratio": n / 8,
        "active": n % 2 == 0,
        "born": dt.date(1990, 1, n),
        "seen": dt.datetime(2024, 2, n, 3, 4, 5),
        "wake": dt.time(6, n, 7),
        "prefs": {"n": n, "list": [1, "two", None], "text": "100%"},
        "role": Role.ADMIN if n == 1 else Role.USER,
        "avatar": bytes([0, n, 255, 39, 92, 37]),
        "note": f"it's \\ {n} % done: %s ?",
        "tags": ["a", f"b{n}"],
        "token": uuid.UUID(int=n),
    }
    for n in range(1, 10)
]
ORDERS: list[dict[str, Any]] = [
    {"id": n, "user_id": 1 + n % 4, "amount": n * 10, "state": "old", "label": "x", "twice": 0, "weird": n}
    for n in range(1, 13)
]


@dataclass
class Sample:
    """One statement with its parameters."""

    name: str
    statement: Any
    params: Any = None
    only: str = ""
    """The backend it is for; empty for all."""
    options: dict[str, Any] = field(default_factory=dict)


def samples() -> Iterator[Sample]:
    """Yield all statements, made anew."""
    for part in (
        _queries,
        _expressions,
        _conditions,
        _types,
        _shapes,
        _texts,
        _inserts,
        _updates,
        _deletes,
        _many,
    ):
        for number, entry in enumerate(part()):
            statement, params, only = (
                (*entry, None, "")[:3] if isinstance(entry, tuple) else (entry, None, "")
            )
            yield Sample(f"{part.__name__[1:]}{number}", statement, params, only or "")


def _queries() -> Iterator[Any]:
    u, o = USER.c, ORDER.c
    yield select(USER)
    yield select(u.id, u.name).order_by(u.id.desc())
    yield select(u.name.label("who"), u.age.label("how old"))
    yield select(u.id, u.id)
    yield select(u.id, o.id).join(ORDER, o.user_id == u.id).order_by(o.id)
    yield select(u.id, o.id).select_from(USER.outerjoin(ORDER)).order_by(u.id, o.id)
    yield select(USER).limit(3).offset(2).order_by(u.id)
    yield select(USER.c.id).limit(bindparam("n", type_=Integer)).order_by(u.id), {"n": 2}
    yield select(u.age).distinct().order_by(u.age)
    yield select(func.count(distinct(u.age)))
    yield select(u.age, func.count()).group_by(u.age).order_by(u.age)
    yield select(u.age, func.count().label("n")).group_by(u.age).having(func.count() > 1).order_by(u.age)
    yield select(func.count(u.email), func.max(u.age), func.min(u.born), func.sum(u.score))
    yield select(func.avg(u.age))
    other = USER.alias("other")
    yield select(u.id, other.c.id).where(u.age == other.c.age, u.id < other.c.id).order_by(u.id, other.c.id)
    sub = select(o.user_id, func.sum(o.amount).label("total")).group_by(o.user_id).subquery()
    yield select(u.name, sub.c.total).join(sub, sub.c.user_id == u.id).order_by(u.id)
    yield select(u.name, select(func.count()).where(o.user_id == u.id).scalar_subquery()).order_by(u.id)
    yield select(u.id).where(exists().where(o.user_id == u.id, o.amount > 50)).order_by(u.id)
    yield select(u.id).where(~exists().where(o.user_id == u.id)).order_by(u.id)
    cte = select(u.id, u.age).where(u.age > 21).cte("older")
    yield select(cte.c.id).where(cte.c.age < 24).order_by(cte.c.id)
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < 5))
    yield select(numbers.c.n)
    yield union(select(u.id).where(u.id < 3), select(u.id).where(u.id < 5)).order_by("id")
    yield union_all(select(u.id).where(u.id < 3), select(o.id).where(o.id < 3)).order_by("id")
    yield select(u.id).where(u.id < 5).except_(select(u.id).where(u.id < 3)).order_by("id")
    yield select(u.id).where(u.id < 5).intersect(select(u.id).where(u.id > 3))
    yield select(u.id, func.row_number().over(order_by=u.id.desc())).order_by(u.id)
    yield select(u.id, func.sum(u.id).over(partition_by=u.age, order_by=u.id)).order_by(u.id)
    yield select(u.id, func.lag(u.id, 1).over(order_by=u.id)).order_by(u.id)


def _expressions() -> Iterator[Any]:
    u, o = USER.c, ORDER.c
    yield select(case((u.age > 22, "old"), (u.age > 20, "middle"), else_="young"), u.id).order_by(u.id)
    yield select(case({1: "one", 2: "two"}, value=u.id, else_="many")).order_by(u.id)
    yield select(
        literal("a"), literal(5), literal(None), literal(Decimal("1.50")), literal(2.5), literal(True)
    )
    yield select(null(), true(), false())
    yield select(func.coalesce(u.email, "none")).order_by(u.id)
    yield select(func.concat(u.name, "-", u.id)).order_by(u.id), None, "mysql"
    yield select(u.name + "%" + u.email).order_by(u.id)
    yield select((u.age % 3).label("mod"), u.id).order_by(u.id)
    yield select(u.id.op("%")(4), u.id).order_by(u.id)
    yield select(cast(u.age, String(10)), cast("12", Integer), cast("1.25", Numeric(6, 2)))
    yield select(extract("year", u.born), extract("month", u.seen)).order_by(u.id)
    yield select(func.group_concat(u.name)).where(u.id < 3)
    yield select(u.id).with_for_update(), None, "mysql"
    yield select(u.id).with_for_update(read=True), None, "mysql"
    yield select(u.id).with_hint(USER, "USE INDEX (PRIMARY)", "mysql").order_by(u.id), None, "mysql"
    yield select(u.id).prefix_with("SQL_NO_CACHE", dialect="mysql").order_by(u.id)
    yield select(USER).where(u.id == -1)
    data = values(column("a", Integer), column("b", String), name="data").data([(1, "x"), (2, "y%")])
    yield select(data.c.a, data.c.b), None, "sqlite"
    yield select(o["weird"]).order_by(o.id)
    yield select(ORDER).order_by(o.id)
    yield select(func.length(u.note), func.upper(u.name)).order_by(u.id)
    yield select(literal_column("'50%'"), literal_column("1 + 1", Integer))


def _conditions() -> Iterator[Any]:
    u = USER.c
    base = select(u.id).order_by(u.id)
    for size in (0, 1, 2, 3, 9, 50):
        yield base.where(u.id.in_(list(range(1, size + 1))))
    yield base.where(u.id.not_in([1, 2, 3]))
    yield base.where(u.id.not_in([]))
    yield base.where(u.name.in_(["name1", "it's", "100%"]))
    yield base.where(tuple_(u.id, u.age).in_([(1, 21), (2, 22), (3, 99)]))
    yield base.where(u.id.in_(select(ORDER.c.user_id)))
    yield base.where(u.id.in_(bindparam("ids", expanding=True))), {"ids": [2, 4]}
    yield base.where(u.id.in_(bindparam("ids", expanding=True))), {"ids": []}
    yield base.where(u.role.in_([Role.ADMIN])), None
    yield base.where(u.born.in_([dt.date(1990, 1, 1), dt.date(1990, 1, 2)]))
    yield base.where(u.name.like("name%"))
    yield base.where(u.name.like("%1"))
    yield base.where(u.note.contains("% done", autoescape=True))
    yield base.where(u.name.startswith("na"), u.name.endswith("3"))
    yield base.where(u.name.ilike("NAME_"))
    yield base.where(not_(u.name.like("%2%")))
    yield base.where(u.age.between(21, 22))
    yield base.where(u.email.is_(None))
    yield base.where(u.email.is_not(None), u.active.is_(True))
    yield base.where(u.email == None)  # noqa: E711 - what is tested
    yield base.where(or_(u.id == 1, and_(u.age > 22, u.active == true())))
    yield base.where(u.active)
    yield base.where(~u.active)
    yield base.where(u.id == bindparam("id")), {"id": 3}
    yield base.where(u.id == bindparam("id", value=4))
    yield base.where(u.id == bindparam("called", callable_=lambda: 5))
    yield base.where(u.id == bindparam("id", 1)).params(id=6)
    yield (
        base.where(or_(u.id == bindparam("a"), u.id == bindparam("b"), u.age == bindparam("a"))),
        {"a": 1, "b": 2},
    )
    yield base.where(u.score == Decimal("0.75"))
    yield base.where(u.ratio > 0.5)
    yield base.where(u.born >= dt.date(1990, 1, 5))
    yield base.where(u.seen < dt.datetime(2024, 2, 3, 4, 5, 6))
    yield base.where(u.wake == dt.time(6, 2, 7))
    yield base.where(u.avatar == bytes([0, 2, 255, 39, 92, 37]))
    yield base.where(u.note == "it's \\ 3 % done: %s ?")
    yield base.where(u.tags == ["a", "b4"])
    yield base.where(u.token == uuid.UUID(int=5))
    yield base.where(u.role == Role.USER)
    yield base.where(u.name == "ünï©ode – 漢字 🎈")
    yield base.where(u.prefs["n"].as_integer() == 3)
    yield base.where(u.prefs["text"].as_string() == "100%")
    yield base.where(u.id == True)  # noqa: E712 - what is tested
    yield base.where(u.id > select(func.avg(ORDER.c.user_id)).scalar_subquery())
    yield base.where(false())
    yield base.where(u.name.collate("utf8mb4_bin") == "Name1"), None, "mysql"
    yield base.where(u.name.regexp_match("^name[12]$")), None, "mysql"


def _types() -> Iterator[Any]:
    for col in USER.c:
        yield select(col).order_by(USER.c.id)
    u = USER.c
    yield select(u.prefs["list"], u.prefs["n"], u.prefs["missing"]).order_by(u.id)
    yield select(u.prefs["list"][1]).order_by(u.id)
    yield select(type_coerce(u.name, Tags)).order_by(u.id)
    yield select(func.max(u.seen), func.min(u.wake), func.max(u.score))
    yield select(u.score * 2, u.score / 3, u.ratio + 1).order_by(u.id)
    yield select(literal({"a": [1]}, JSON), literal(b"\x00'\xff", LargeBinary))
    yield select(literal(dt.date(2020, 2, 29)), literal(dt.datetime(2020, 2, 29, 1, 2, 3, 456000)))
    yield select(literal(10**15), literal(-(2**31)), literal(0.1), literal("")), None


def _shapes() -> Iterator[Any]:
    u, o = USER.c, ORDER.c
    yield select(u.id, ORDER).join(ORDER).order_by(o.id).limit(2)
    yield select(USER, ORDER).join(ORDER).order_by(o.id).limit(1)
    yield select(func.count()).select_from(USER)
    yield select(u.id.label("x"), u.id.label("x"))
    yield select(u.name.label("count"), u.id.label("index"), u.age.label("_private"))
    yield select(select(u.id).where(u.id == 1).subquery())
    yield select(literal(1).label("a%b"))
    yield select(u.id).add_columns(u.age).where(u.id == 1)
    yield select(text("1 AS one"), u.id).select_from(USER).order_by(u.id)
    yield select(u.id).order_by(desc("id")).limit(1)


def _texts() -> Iterator[Any]:
    yield text("SELECT 1 AS a, 'x' AS b")
    yield text("SELECT id FROM keyed WHERE n = :n"), {"n": 11}
    yield text("SELECT '10%' AS percent, '%s' AS mark")
    yield text(r"SELECT ':not' AS a, '\:x' AS b")
    yield text("SELECT :a AS a, :a AS again, :b AS b"), {"a": 1, "b": "it's %"}
    yield text("SELECT id, n FROM keyed").columns(column("id", String), column("n", Integer))
    yield text("SELECT '[1, 2]' AS doc").columns(column("doc", JSON))
    yield text("SELECT amount, state FROM `order` ORDER BY id").columns(ORDER.c.amount, ORDER.c.state)
    yield (
        text("SELECT id FROM keyed WHERE n IN :ns").bindparams(bindparam("ns", expanding=True)),
        {"ns": [1, 11]},
    )
    yield text("UPDATE keyed SET n = n + :d"), {"d": 2}
    yield text("INSERT INTO keyed (id, n) VALUES (:id, :n)"), {"id": "t", "n": None}


def _inserts() -> Iterator[Any]:
    yield insert(USER).values(name="new")
    yield insert(USER).values(**{**PEOPLE[0], "id": 50})
    yield insert(USER), {"name": "by params", "age": 3}
    yield insert(USER).values(name="mixed"), {"age": 4}
    yield insert(USER).values(name=func.concat("a", "b")), None, "mysql"
    yield insert(USER).values(name="n", age=select(func.max(USER.c.id)).scalar_subquery()), None, "sqlite"
    yield insert(USER).values(name="json null", prefs=None)
    yield insert(USER).values(name="sql null", prefs=null())
    yield insert(USER).values(name="json", prefs=["100%", {"a": "'"}])
    yield insert(USER).values([{"name": "m1", "age": 1}, {"name": "m2", "age": 2}])
    yield insert(ORDER).values(user_id=1)
    yield insert(ORDER).values(user_id=2, amount=1, state=None)
    yield insert(ORDER), {"user_id": 3, "weird": 8}
    yield insert(ORDER).values([{"user_id": 1}, {"user_id": 2}])
    yield insert(ORDER).from_select(["user_id", "amount"], select(USER.c.id, USER.c.age))
    yield insert(KEYED).values(n=5)
    yield insert(KEYED)
    yield insert(KEYED).values(id="x")
    yield insert(ORDER).values({ORDER.c.user_id: 1, "weird": 3})
    yield insert(ORDER).values(user_id=bindparam("uid"), amount=bindparam("much", 3) + 1), {"uid": 4}
    yield insert(KEYED).prefix_with("IGNORE").values(id="one"), None, "mysql"
    yield insert(KEYED).prefix_with("OR IGNORE").values(id="one"), None, "sqlite"
    up = mysql.insert(KEYED).values(id="one", n=3)
    yield up.on_duplicate_key_update(n=up.inserted.n + 1), None, "mysql"
    yield up.on_duplicate_key_update({"n": 99}), None, "mysql"
    upsert = sqlite.insert(KEYED).values(id="one", n=3)
    yield (
        upsert.on_conflict_do_update(index_elements=["id"], set_={"n": upsert.excluded.n + 1}),
        None,
        "sqlite",
    )
    yield upsert.on_conflict_do_nothing(), None, "sqlite"
    yield insert(KEYED).values(id="r", n=4).returning(KEYED.c.id, KEYED.c.n)
    yield insert(ORDER).values(user_id=1).returning(ORDER)
    yield insert(KEYED).values(id="one")  # violates the primary key
    yield insert(USER).values(name=None)  # violates NOT NULL


def _updates() -> Iterator[Any]:
    u, o = USER.c, ORDER.c
    yield update(USER).where(u.id == 1).values(name="changed")
    yield update(USER).where(u.id == 1).values(name="name1")  # matches, and changes nothing
    yield update(USER).where(u.id == 999).values(name="x")
    yield update(USER).values(age=u.age + 1)
    yield update(USER).where(u.id.in_([1, 2])).values(prefs={"x": 1}, role=Role.ADMIN, tags=["z"])
    yield update(ORDER).where(o.id == 1).values(amount=1)
    yield update(ORDER).where(o.id == 2).values(state="mine", twice=1)
    yield update(ORDER).where(o.id == bindparam("which")), {"which": 3, "amount": 5}
    yield (
        update(ORDER).where(o.id == bindparam("which")).values(amount=bindparam("much")),
        {"which": 3, "much": 5},
    )
    yield update(USER).values(age=select(func.count()).where(o.user_id == u.id).scalar_subquery())
    yield update(USER).values(age=case((u.id > 4, 1), else_=2))
    yield update(ORDER).values(amount=null(), label=func.upper(o.label))
    yield update(ORDER).where(o.user_id == u.id, u.name == "name2").values(amount=0), None, "mysql"
    yield update(ORDER).where(o.id < 5).values(amount=9).with_dialect_options(mysql_limit=2), None, "mysql"
    yield update(KEYED).values(n=5).returning(KEYED.c.n), None, "sqlite"
    yield update(USER).ordered_values((u.age, 5), (u.name, "five")).where(u.id == 5)
    yield update(ORDER).values({"weird": 4}).where(o["weird"] == 3)


def _deletes() -> Iterator[Any]:
    u, o = USER.c, ORDER.c
    yield delete(ORDER)
    yield delete(ORDER).where(o.id == 1)
    yield delete(ORDER).where(o.id.in_([1, 2, 77]))
    yield delete(ORDER).where(o.user_id.in_(select(u.id).where(u.age > 22)))
    yield delete(ORDER).where(o.id == bindparam("id")), {"id": 5}
    yield delete(ORDER).where(exists().where(u.id == o.user_id, u.name == "name3"))
    yield delete(ORDER).where(o.user_id == u.id, u.name == "name2"), None, "mysql"
    yield delete(ORDER).with_dialect_options(mysql_limit=3), None, "mysql"
    yield delete(KEYED).returning(KEYED.c.id)
    yield delete(USER)  # violates the foreign key


def _many() -> Iterator[Any]:
    u, o = USER.c, ORDER.c
    yield insert(KEYED), [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c", "n": None}]
    yield insert(ORDER), [{"user_id": n} for n in (1, 2, 3)]
    yield insert(USER), [{"name": f"many{n}", "prefs": {"n": n}, "role": Role.USER} for n in range(5)]
    yield update(ORDER).where(o.id == bindparam("which")), [{"which": n, "amount": -n} for n in (1, 2, 3)]
    yield delete(ORDER).where(o.id == bindparam("which")), [{"which": n} for n in (1, 2, 99)]
    yield (
        update(USER).where(u.id == bindparam("which")).values(tags=bindparam("t")),
        [
            {"which": 1, "t": ["p"]},
            {"which": 2, "t": None},
        ],
    )
    yield text("UPDATE keyed SET n = :n WHERE id = :id"), [{"id": "one", "n": 4}, {"id": "two", "n": 5}]
