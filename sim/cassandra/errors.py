"""The errors a server sends, made as the driver makes them from the wire.

`SyntaxException` reaches the application as the driver's protocol class, because the driver gives it no public twin;
`InvalidRequest` and `AlreadyExists` have one (see `cassandra.protocol.ErrorMessage.to_exception`).
"""

from __future__ import annotations

from typing import Any

from cassandra import ConsistencyLevel
from cassandra.protocol import (
    AlreadyExistsException,
    ConfigurationException,
    InvalidRequestException,
    OverloadedErrorMessage,
    ProtocolException,
    ReadTimeoutErrorMessage,
    ServerError,
    SyntaxException,
    UnavailableErrorMessage,
    WriteTimeoutErrorMessage,
)

__all__ = [
    "ServerRefusal",
    "already_exists",
    "bad_configuration",
    "invalid",
    "overloaded",
    "protocol_error",
    "read_timeout",
    "syntax_error",
    "unavailable",
    "unsupported",
    "write_timeout",
]


ErrorMessage = Any
"""A message of `cassandra.protocol`; the driver has no type hints."""


class ServerRefusal(Exception):
    """Carries a server's error message through the simulated server until it is sent to the client."""

    def __init__(self, message: ErrorMessage) -> None:
        super().__init__(str(message))
        self.message = message

    def to_exception(self) -> Exception:
        """What the driver would raise in the application for this message."""
        convert = getattr(self.message, "to_exception", None)
        error: Exception = self.message if convert is None else convert()
        return error


def invalid(text: str) -> ServerRefusal:
    """The statement is well-formed and wrong; the application sees `cassandra.InvalidRequest`."""
    return ServerRefusal(InvalidRequestException(InvalidRequestException.error_code, text, None))


def unsupported(what: str) -> ServerRefusal:
    """Real Cassandra may do this; the simulated one does not, and says so rather than ignoring it."""
    return invalid(f"{what} is not supported by the simulated Cassandra")


def syntax_error(text: str) -> ServerRefusal:
    """The text is not CQL."""
    return ServerRefusal(SyntaxException(SyntaxException.error_code, text, None))


def protocol_error(text: str) -> ServerRefusal:
    """The request is not one that a driver would send. The real server closes the connection, too."""
    return ServerRefusal(ProtocolException(ProtocolException.error_code, text, None))


def bad_configuration(text: str) -> ServerRefusal:
    """A table or keyspace option is wrong."""
    return ServerRefusal(ConfigurationException(ConfigurationException.error_code, text, None))


def already_exists(keyspace: str, table: str) -> ServerRefusal:
    """CREATE of something that exists; an empty table name means the keyspace."""
    code = AlreadyExistsException.error_code
    what = f"{keyspace}.{table}" if table else keyspace
    return ServerRefusal(
        AlreadyExistsException(code, f"Cannot add already existing {what}", {"keyspace": keyspace, "table": table})
    )


def unavailable(consistency: int, required: int, alive: int) -> ErrorMessage:
    """Too few replicas are known to be up; nothing was sent to any."""
    info = {"consistency": consistency, "required_replicas": required, "alive_replicas": alive}
    text = f"Cannot achieve consistency level {ConsistencyLevel.value_to_name[consistency]}"
    return UnavailableErrorMessage(UnavailableErrorMessage.error_code, text, info)


def write_timeout(consistency: int, received: int, required: int, write_type: int) -> ErrorMessage:
    """Too few acknowledgements within write_request_timeout; the write may be on any number of replicas."""
    info = {
        "consistency": consistency,
        "received_responses": received,
        "required_responses": required,
        "write_type": write_type,
    }
    return WriteTimeoutErrorMessage(
        WriteTimeoutErrorMessage.error_code, f"Operation timed out - received only {received} responses.", info
    )


def read_timeout(consistency: int, received: int, required: int, data_retrieved: bool) -> ErrorMessage:
    """Too few replicas answered a read within read_request_timeout."""
    info = {
        "consistency": consistency,
        "received_responses": received,
        "required_responses": required,
        "data_retrieved": data_retrieved,
    }
    return ReadTimeoutErrorMessage(
        ReadTimeoutErrorMessage.error_code, f"Operation timed out - received only {received} responses.", info
    )


def overloaded() -> ErrorMessage:
    """The coordinator sheds load; nothing was done."""
    return OverloadedErrorMessage(OverloadedErrorMessage.error_code, "Too many requests in flight", None)


def server_error(text: str) -> ErrorMessage:
    """Something went wrong in the coordinator."""
    return ServerError(ServerError.error_code, text, None)
