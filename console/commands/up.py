"""`foldback up`"""


def up() -> None:
    """Start everything on this machine: broker, server, trainer and web page.

    An embedded Kafka-compatible broker is started unless feedback.bootstrap_servers names one. Logs go to
    data_dir/logs. Ctrl-C stops all of it in order; if one part dies, its last words are shown and the rest is stopped.
    """
    from console.commands.common import load_settings
    from console.up import run_up

    run_up(load_settings())
