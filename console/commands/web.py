"""`foldback web`"""


def web() -> None:
    """Serve the web page alone: chat, rank, watch it learn, steer its versions.

    It is a client of the server that console.address names, like every other command. `foldback up` starts it by
    itself, on http://127.0.0.1:8080 unless console.web_port says otherwise.

    Examples:
        FOLDBACK_CONSOLE__ADDRESS=chat.example:50051 foldback web
    """
    from console.commands.common import load_settings
    from console.web.app import run_web

    run_web(load_settings())
