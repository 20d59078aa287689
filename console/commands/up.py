"""`foldback up`"""


def up() -> None:
    """Start everything on this machine: broker, server, trainer and web page.

    An embedded Kafka-compatible broker is started unless feedback.bootstrap_servers names one. Logs go to
    data_dir/logs. Ctrl-C stops all of it in order. A trainer or a web page that dies is started again; if another part
    dies, or one of these within its first minute, its last words are shown and the rest is stopped.

    Examples:
        foldback up
        FOLDBACK_CONSOLE__WEB_PORT=0 foldback up
        FOLDBACK_MODEL__NAME=models/my-model foldback up
        FOLDBACK_FEEDBACK__BOOTSTRAP_SERVERS=kafka:9092 foldback up
    """
    from console.commands.common import load_settings
    from console.up import run_up

    run_up(load_settings())
