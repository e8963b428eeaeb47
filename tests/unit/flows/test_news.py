"""What is told to a server: told again while it is out of reach, left out in the end, and never swallowed if wrong."""

import httpx
import pytest
from prefect.exceptions import UnfinishedRun
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from flows import news

REQUEST = httpx.Request("POST", "http://127.0.0.1/api/artifacts/")


def refusal(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("no", request=REQUEST, response=httpx.Response(status, request=REQUEST))


class Server:
    """Fails as it is told to, then takes everything."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.retries: list[int] = []

    def __call__(self, *, key: str = "") -> str:
        self.retries.append(PREFECT_CLIENT_MAX_RETRIES.value())
        if self.errors:
            raise self.errors.pop(0)
        return f"took {key}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "DELAYS_S", (0.0, 0.0))
    monkeypatch.setattr(news, "PATIENCE_S", (0.0, 0.0))


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), refusal(500), refusal(429)]
)
def test_what_passes_is_tried_again(error: Exception) -> None:
    server = Server(error, error)

    assert news.told(server, key="mix") == "took mix"
    assert server.retries == [0, 0, 0], "the client itself does not wait, too"


def test_a_server_that_stays_away_does_not_end_the_run() -> None:
    server = Server(*[httpx.ConnectError("refused")] * 9)

    assert news.told(server, key="mix") is None
    assert len(server.retries) == 3
    assert news.told_once(server) is None
    assert len(server.retries) == 4


@pytest.mark.parametrize("error", [refusal(422), refusal(401), ValueError("ours")])
@pytest.mark.parametrize("waits", [True, False])
def test_what_does_not_pass_is_raised_at_once(error: Exception, waits: bool) -> None:
    server = Server(error)

    with pytest.raises(type(error)):
        (news.told if waits else news.told_once)(server)
    assert len(server.retries) == 1


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), refusal(500), UnfinishedRun("in PENDING state")])
def test_work_that_prefect_broke_off_is_done_again(error: Exception) -> None:
    assert news.outlasting(Server(error, error))(key="a build") == "took a build"


@pytest.mark.parametrize("error", [refusal(401), ValueError("ours")])
def test_work_that_failed_by_itself_is_not_done_again(error: Exception) -> None:
    server = Server(error)

    with pytest.raises(type(error)):
        news.outlasting(server)()
    assert len(server.retries) == 1


def test_patience_has_an_end() -> None:
    server = Server(*[httpx.ConnectError("refused")] * 9)

    with pytest.raises(httpx.ConnectError):
        news.outlasting(server)()
    assert len(server.retries) == 3


def test_the_clients_patience_is_as_it_was_afterwards() -> None:
    before = PREFECT_CLIENT_MAX_RETRIES.value()
    news.told(Server())

    assert before == PREFECT_CLIENT_MAX_RETRIES.value() > 0
