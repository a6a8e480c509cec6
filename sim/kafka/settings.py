"""How the client doubles treat aiokafka's keyword arguments: what is not modelled is refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping

FIXED: Mapping[str, tuple[object, ...]] = {
    "loop": (None,),
    "api_version": (None,),
    "security_protocol": ("PLAINTEXT",),
    "ssl_context": (None,),
    "sasl_mechanism": ("PLAIN",),
    "sasl_plain_password": (None,),
    "sasl_plain_username": (None,),
    "sasl_kerberos_service_name": ("kafka",),
    "sasl_kerberos_domain_name": (None,),
    "sasl_oauth_token_provider": (None,),
    "connections_max_idle_ms": (540_000,),
    "compression_type": (None,),
    "group_instance_id": (None,),
    "fetch_min_bytes": (1,),
    "check_crcs": (True, False),
    "exclude_internal_topics": (True,),
    "client_rack": (None,),
}
"""Arguments of aiokafka's clients of which the doubles know only these values."""


class UnsupportedSetting(NotImplementedError):
    """A client was asked for something that the simulation does not model."""


def refuse_unsupported(client: str, settings: Mapping[str, object]) -> None:
    """Raise `UnsupportedSetting` for a value that is not modelled, TypeError for an argument that aiokafka has not."""
    for name, value in settings.items():
        if name not in FIXED:
            raise TypeError(f"{client} got an unexpected keyword argument '{name}'")
        if value not in FIXED[name]:
            raise UnsupportedSetting(f"{client}({name}={value!r}) is not modelled; only {FIXED[name]!r}")
