"""Functions of the application that see every request and answer."""

from __future__ import annotations

import inspect

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from ws_pool._http.options import HttpOptions


class HookFailed(Exception):
    """A hook raised: its error is for the caller, and never for the retries."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Hooks:
    """A middleware of aiohttp that calls a pool's hooks, for each attempt and each redirect."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Call the hooks around a request."""
        await _call(self._options.on_request, request)
        response = await handler(request)

        try:
            await _call(self._options.on_response, response)
        except BaseException:
            response.close()
            raise

        return response


async def _call(hook: object, argument: ClientRequest | ClientResponse) -> None:
    """Call a hook, which may be a coroutine function."""
    if not callable(hook):
        return

    try:
        result = hook(argument)

        if inspect.isawaitable(result):
            await result
    except Exception as error:
        raise HookFailed(error) from error
