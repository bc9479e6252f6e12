"""Values stay values whatever the session takes a backslash for."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, select, text

from ws_pool import MysqlPool
from ws_pool._sql.client import SqlClient
from ws_pool._sql.compile.compiler import Prepared
from ws_pool.errors import QueryError, UnsupportedStatement

NO_BACKSLASH_ESCAPES = 0x200  # server status flag
MODE = "NO_BACKSLASH_ESCAPES"
TABLE = Table("quoted", MetaData(), Column("id", Integer, primary_key=True), Column("word", String(50)))
NASTY = (
    "\\' OR 1=1 -- ",
    "\\\\' OR 1=1 -- ",
    "' OR '1'='1",
    "\\",
    'it\'s "quoted" \\" here',
    "100%\n\0\x1a",
    "\\%\\_",
)


async def come_back(client: SqlClient) -> None:
    """Send every value in every way, and have it back as it was."""
    by_word = select(TABLE).where(TABLE.c.word == bindparam("word"))
    prepared = Prepared(by_word)
    await client.delete("DELETE FROM quoted")
    assert await client.insert_many(TABLE, [{"word": word} for word in NASTY]) == len(NASTY)

    for word in NASTY:
        for query in (by_word, prepared, "SELECT * FROM quoted WHERE word = :word"):
            assert [row.word for row in await client.select(query, word=word)] == [word]

        found = client.iterate(by_word, word=word)
        assert [row.word async for row in found] == [word]
        assert (await client.find("SELECT %s AS word", word)).word == word
        assert await client.update("UPDATE quoted SET word = :word WHERE word = :word", word=word) == 1
        assert (await client.find("SELECT :word IN (:word, 'x') AS found", word=word)).found == 1


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
class TestPlaces:
    """Places of values inside strings and comments, where a value in quotes would be SQL."""

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT ':v' AS a",
            "SELECT 'it''s :v' AS a",
            'SELECT "say :v" AS a',
            "SELECT 1 /* :v */ AS a",
            "SELECT 1 AS a -- :v",
            "SELECT 1 AS a # :v",
            "SELECT '%(v)s' AS a",
        ],
    )
    async def test_they_are_refused(self, driver: str, sql: str, mysql_url: str):
        """By name and by position, and as SQLAlchemy's `text`."""
        value = " OR 1=1 -- "

        async with MysqlPool(mysql_url.replace("mysql://", f"mysql+{driver}://", 1), max_size=1) as pool:
            for attempt in (
                pool.select(sql, v=value),
                pool.select(text(sql.replace("%(v)s", ":v")).bindparams(v=value)),
                pool.select(sql.replace("%(v)s", ":v").replace(":v", "%s"), value),
            ):
                with pytest.raises(UnsupportedStatement, match="inside a string or a comment"):
                    await attempt

    async def test_text_that_looks_like_them_is_text(self, driver: str, mysql_url: str):
        """Without values, and written twice or with a backslash."""
        async with MysqlPool(mysql_url.replace("mysql://", f"mysql+{driver}://", 1), max_size=1) as pool:
            assert await pool.find("SELECT '%s', ':v'") == ("%s", ":v")
            assert await pool.find("SELECT '%%s', '100 %%', %s", 5) == ("%s", "100 %", 5)
            named = await pool.find(r"SELECT '\:v', '12:30', '%s', '%%s', :v", v=5)
            assert named == (":v", "12:30", "%s", "%%s", 5)
            assert await pool.find("SELECT `a%%s`.n FROM (SELECT %s AS n) AS `a%%s`", 5) == (5,)


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy"])
class TestModes:
    """Sessions with and without backslash escapes."""

    async def test_a_session_may_change_its_mode(self, driver: str, mysql_url: str):
        """The change counts for the next statement, in both directions, and the reset undoes it."""
        async with MysqlPool(mysql_url.replace("mysql://", f"mysql+{driver}://", 1), max_size=1) as pool:
            await pool.create_all(TABLE.metadata)

            async with pool.get_client() as client:
                await come_back(client)
                mode = (await client.find("SELECT @@sql_mode AS mode")).mode
                await client.execute(f"SET SESSION sql_mode = '{MODE}'")
                await come_back(client)
                await client.execute("SET SESSION sql_mode = :mode", mode=mode)
                await come_back(client)
                await client.execute(f"SET SESSION sql_mode = '{MODE}'")

            async with pool.get_client() as client:
                assert MODE not in (await client.find("SELECT @@sql_mode AS mode")).mode
                await come_back(client)

    async def test_a_pool_may_have_the_mode(self, driver: str, mysql_url: str):
        """From the connect on, and after each reset."""
        async with MysqlPool(
            mysql_url.replace("mysql://", f"mysql+{driver}://", 1), max_size=1, sql_mode=MODE
        ) as pool:
            await pool.create_all(TABLE.metadata)

            for _ in range(2):
                async with pool.get_client() as client:
                    assert (await client.find("SELECT @@sql_mode AS mode")).mode == MODE
                    await come_back(client)
                    await client.execute("SET @mine = 1")  # the session is reset


async def test_without_the_flag_a_value_would_become_sql(mysql_url: str):
    """The broken twin, which does not know the session's mode, lets a value out of its quotes."""
    async with MysqlPool(mysql_url, max_size=1) as pool:
        await pool.create_all(TABLE.metadata)

        async with pool.get_client() as client:
            await client.execute(f"SET SESSION sql_mode = '{MODE}'")
            await client.insert_many(TABLE, [{"word": "a"}, {"word": "b"}])
            client.raw.server_status &= ~NO_BACKSLASH_ESCAPES
            rows = await client.select("SELECT * FROM quoted WHERE word = :word", word=NASTY[0])
            assert len(rows) == 2
            client.raw.server_status &= ~NO_BACKSLASH_ESCAPES

            with pytest.raises(QueryError):
                await client.select("SELECT :word AS word", word="it's")
