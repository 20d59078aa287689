"""Whether a broker lets us in: one connection, through TLS and SASL, before a client of kafka-python is made.

Of all that may go wrong there, its clients say after seconds of trying that they are unable to bootstrap. And one whose
constructor fails leaves a thread behind: with a wrong password that would be another every few seconds.
"""

from collections.abc import Mapping
from typing import Any

from kafka.errors import (
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    KafkaError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from settings.feedback import FeedbackSettings

_TIMEOUT_MS = 3000


class NotAdmitted(KafkaError):  # type: ignore[misc]
    """A broker answers and does not let us in; the message names the setting and the remedy, never a password."""

    def __str__(self) -> str:
        return str(self.args[0])


def shake_hands(server: str, settings: FeedbackSettings, options: Mapping[str, Any]) -> None:
    """Connect to `server` (host:port) with a client's `options`, and ask for metadata. Raises NotAdmitted."""
    net = NetworkSelector()
    manager = KafkaConnectionManager(net, **{**options, "bootstrap_servers": [server]})
    [broker] = manager.cluster.bootstrap_brokers()
    try:
        connection = manager.get_connection(broker.node_id, timeout_ms=_TIMEOUT_MS, pop_on_close=False)
        manager.run(manager.wait_for, connection.init_future, _TIMEOUT_MS)  # a TLS handshake has no limit of its own
        manager.run(manager.cluster.refresh_metadata, broker.node_id)
    except Exception as error:  # a SCRAM exchange that goes wrong raises ValueError
        raise NotAdmitted(f"{server}: {_explain(error, settings)}") from error
    finally:
        manager.close()
        net.close()


def _explain(error: Exception, settings: FeedbackSettings) -> str:
    who = f"feedback.sasl_username={settings.sasl_username!r} by {settings.sasl_mechanism}"
    protocol = f"feedback.security_protocol={settings.security_protocol}"
    match error:
        case SaslAuthenticationFailedError():
            return (
                f"the broker refuses {who}; correct that name, or the password in FOLDBACK_FEEDBACK__SASL_PASSWORD"
                f" ({error})"
            )
        case UnsupportedSaslMechanismError():
            return (
                f"the broker does not take feedback.sasl_mechanism={settings.sasl_mechanism}; set the one that it does"
            )
        case IllegalSaslStateError() | IncompatibleBrokerVersion():
            return f"the broker asks for no password, and {protocol}; set PLAINTEXT or SSL, or use its SASL port"
        case ValueError():
            return f"the broker cannot prove that it knows the password of {who}: is it the right one? ({error})"
        case _ if "CERTIFICATE" in str(error) or "certificate" in str(error):
            return (
                f"TLS fails: {error}; correct feedback.ssl_cafile (who signs the brokers' certificates),"
                " or feedback.ssl_certfile and ssl_keyfile (what we show)"
            )
        case _:
            known = ", and does it know who signed feedback.ssl_certfile" if settings.ssl_certfile else ""
            return f"it accepts connections and answers nothing; does {protocol} fit that port{known}? ({error})"
