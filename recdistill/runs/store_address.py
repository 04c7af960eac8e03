"""The address of a store as it is shown, noted and compared: absolute where it is a file, and without a secret."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

#: An address in a text: passwords hold quotes and brackets, but no white space.
ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*)://(?P<rest>\S+)")
#: What SQLAlchemy takes for user and password: up to the first @, whatever stands between colon and @.
DATABASE_USER = re.compile(r"[^:/@]*(?::[^@]*)?@")
#: A secret, or a user's name, in the query of an address.
QUERY_SECRET = re.compile(
    r"(?P<name>[?&;](?:user|username|(?:\w+[-_])?(?:api|access|private|ssl)?key|"
    r"[^=&;?\s]*(?:pass|pwd|secret|token|credential|signature)[^=&;?\s]*)=)[^&;\s'\"#]*",
    re.IGNORECASE,
)
SQLITE = re.compile(r"(?P<scheme>sqlite(?:\+\w+)?:///)(?P<path>[^?]*)(?P<query>.*)", re.DOTALL)
HIDDEN = "***"


def without_secrets(text: str, *addresses: str) -> str:
    """A text without users' names, passwords and tokens of the addresses in it.

    ``addresses`` are those of stores that it may speak of: each is found whole, whatever its password is made of, and
    so is its host behind the end of a password, which drivers take for a part of the host where it holds an @.

    >>> without_secrets("postgresql://me:hun/ter2@host:5432/runs?sslmode=require&password=x")
    'postgresql://host:5432/runs?sslmode=require&password=***'
    """
    for address in addresses:
        shown = ADDRESS.sub(_shown, address)
        if shown != address:
            text = text.replace(address, shown)
            host = re.split(r"[:/?]", shown.partition("://")[2])[0]
            text = re.sub(rf"[^\s'\"(/]+@(?={re.escape(host)}\b)", "", text) if host else text
    return ADDRESS.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    rest = found["rest"]
    rest = rest[_user_end(found["scheme"], rest) :]
    return f"{found['scheme']}://" + QUERY_SECRET.sub(rf"\g<name>{HIDDEN}", rest)


def _user_end(scheme: str, rest: str) -> int:
    """Where user and password of an address end, behind the last @ of them; 0 where it has none."""
    if rest.startswith("/"):  # a file
        return 0
    if scheme.lower() in ("http", "https"):
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        # What is no port is the beginning of a password that holds a / or a #.
        return (authority if _is_host(authority) else rest).rfind("@") + 1
    user = DATABASE_USER.match(rest)
    if user is None:
        return 0
    # A password may hold an @, too.
    return user.end() + rest[user.end() :].partition("?")[0].rfind("@") + 1


def _is_host(authority: str) -> bool:
    """Whether host and port of ``user:password@host:port`` can be read."""
    try:
        return bool(urlsplit(f"//{authority}").port or True)
    except ValueError:
        return False


def absolute(address: str) -> str:
    """The same address from any folder: that of a file made absolute, any other as it is."""
    if sqlite := SQLITE.fullmatch(address):
        path = sqlite["path"]
        if not path or path == ":memory:" or path.startswith("file:"):
            return address
        return f"{sqlite['scheme']}{Path(path).resolve()}{sqlite['query']}"
    try:
        local = is_local_uri(address)
    except MlflowException:  # file://another-machine
        local = False
    return Path(local_file_uri_to_path(address)).resolve().as_uri() if local else address


def noted_address(address: str) -> str:
    """What messages call a store, and what notes and queues on disk have: absolute and without a secret."""
    return without_secrets(absolute(address))
