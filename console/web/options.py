"""How answers are drawn, behind one button; what a visitor sets here holds on every page of the visit."""

from nicegui import ui

from console.web.visit import Options


def options_panel(options: Options) -> None:
    def chosen(name: str, value: object, default: object = None) -> None:
        setattr(options, name, default if value is None else value)

    with ui.expansion("Options", icon="tune").classes("fb-options"), ui.element("div").classes("fb-form"):
        ui.textarea(
            "System prompt", value=options.system, on_change=lambda event: chosen("system", event.value, "")
        ).props("autogrow outlined dense").classes("fb-wide")
        ui.number(
            "Temperature",
            placeholder="the server's",
            value=options.temperature,
            min=0,
            max=2,
            step=0.1,
            on_change=lambda event: chosen("temperature", event.value),
        ).props("outlined dense")
        ui.number(
            "Longest answer, tokens",
            value=options.max_tokens,
            min=1,
            max=4096,
            step=32,
            precision=0,
            on_change=lambda event: chosen("max_tokens", event.value and int(event.value), 256),
        ).props("outlined dense")
        ui.switch(
            "Foldback may learn from what I write and rate",
            value=options.consent,
            on_change=lambda event: chosen("consent", event.value),
        ).classes("fb-wide")
