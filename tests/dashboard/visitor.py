"""A client that sends what a browser sends, and also what none would send: each header and cookie is the test's own."""

import http.client
import re
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from postqueue_api.sandbox.sink import LOOPBACK
from tests.dashboard.browsing import SECRETS, Site
from tests.live.service import Answer

COOKIE = "postqueue_api_session"


@dataclass
class Visitor:
    """Somebody with cookies of their own. `headers` go with each request."""

    site: Site
    cookies: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    trust: ssl.SSLContext | None = None
    source: str = LOOPBACK  # the address to ask from

    @property
    def origin(self) -> str:
        return self.site.address

    @property
    def cookie(self) -> str:
        """The value of the session's cookie."""
        return next(value for name, value in self.cookies.items() if name.endswith(COOKIE))

    def ask(
        self, method: str, path: str, form: Mapping[str, str] | bytes | None = None, /, **headers: str | None
    ) -> Answer:
        """One request; a header X-Y is x_y, and None takes one away. A mapping is sent as a form."""
        given: dict[str, str | None] = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if method == "POST":
            given["Origin"] = self.origin
        body = form
        if isinstance(form, Mapping):
            body = urlencode(form).encode()
            given["Content-Type"] = "application/x-www-form-urlencoded"
        given |= {**self.headers, **{name.replace("_", "-").title(): value for name, value in headers.items()}}
        with closing(self._connection()) as connection:
            sent = {name: value for name, value in given.items() if value}
            connection.request(method, path, body, sent)  # type: ignore[arg-type]
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        self._keep(answer)
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        port = self.site.service.port
        if self.trust is None:
            return http.client.HTTPConnection(LOOPBACK, port, timeout=30, source_address=(self.source, 0))
        return http.client.HTTPSConnection(
            LOOPBACK, port, timeout=30, source_address=(self.source, 0), context=self.trust
        )

    def _keep(self, answer: Answer) -> None:
        for header in answer.headers.get_all("Set-Cookie") or []:
            for name, morsel in SimpleCookie(header).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value

    def log_in(self, who: str, secret: str | None = None, following: str = "/", /, **headers: str | None) -> Answer:
        form = {"name": who, "password": SECRETS[who] if secret is None else secret, "next": following}
        return self.ask("POST", "/login", form, **headers)

    def token(self) -> str:
        """What a page holds against forged requests."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.ask("GET", "/operations").body.decode())
        assert found is not None
        return found[1]

    def is_in(self) -> bool:
        """Whether the API knows who this is."""
        return self.ask("GET", "/v1/operations").status == 200
