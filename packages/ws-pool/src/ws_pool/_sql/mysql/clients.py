"""The client of a MySQL pool: the verbs of all clients, and LOAD DATA LOCAL INFILE."""

from __future__ import annotations

import re
from typing import Any, cast

from ws_pool._sql.client import SqlClient
from ws_pool._sql.compile.parameters import Statement
from ws_pool._sql.files import Source, reading
from ws_pool._sql.mysql.connection import MysqlConnection
from ws_pool._sql.mysql.statement_text import bare
from ws_pool.errors import QueryError, UsageError

_LOAD = re.compile(
    r"\s*load\s+(?:data|xml)\s+(?:(?:low_priority|concurrent)\s+)?local\s+infile\b", re.IGNORECASE
)


class MysqlClient(SqlClient):
    """A client of a `MysqlPool`: the verbs of `SqlClient`, and `load_data`."""

    __slots__ = ()

    async def load_data(
        self, statement: Statement, source: Source, *args: Any, strict: bool = True, **params: Any
    ) -> int:
        """
        Load a file into a table with LOAD DATA LOCAL INFILE, and return how many rows. All of them, or none.

        ``source`` is what is loaded: a path, bytes, an object with ``read()``, or a sync or async
        iterable of bytes. The file that the statement names is never opened.

        With LOCAL the server makes do with what it cannot take: it skips duplicate rows and changes
        values that do not fit. With ``strict`` that is a `QueryError`, and no row stays.

        The pool needs the option ``local_infile``, the server its variable of the same name.
        """
        plan, sql, values = await self._bind(statement, args, params)

        if not _LOAD.match(bare(sql)):
            message = "load_data() takes a LOAD DATA LOCAL INFILE statement; execute() runs all others"
            raise UsageError(message, sql=sql)

        if not cast("MysqlConnection", self.connection).local_infile:
            message = "load_data() needs the pool's option local_infile=True"
            raise UsageError(message, sql=sql)

        async with reading(source, "load_data") as chunks, self.begin():
            loaded = await self._session.run(
                plan, sql, lambda to: cast("MysqlConnection", to).load_file(sql, values, chunks)
            )

            if strict and loaded.warnings:
                message = (
                    f"the server has not taken all as it is, {loaded.warnings} warnings: {loaded.shown}; "
                    "nothing was loaded: strict=False keeps what it made of the file"
                )
                raise QueryError(message, sql=sql)

        return loaded.rows
