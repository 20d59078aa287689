"""What keeps the data: the brokers and the registry, as their own packages see them."""

from console.asking import NotTold, ask
from console.doctor.finding import Finding, failed, note, ok
from settings import Settings

EMBED = "'foldback up' embeds one"
START = (
    "start it, or correct feedback.bootstrap_servers; see FoldbackBrokerAway in docs/runbooks.md."
    " Chat goes on and feedback waits in the spool meanwhile"
)
CORRECT = (
    "correct the setting that is named, and start server and trainer anew with it: they read settings when they start."
    " Chat goes on and feedback waits in the spool meanwhile"
)
APPLY = "'foldback topics apply' creates what is missing; a partition without a leader is the brokers' to mend"
ALTER = "'foldback topics apply' alters what can be altered; or set feedback.* to what you mean"


async def broker(settings: Settings) -> tuple[list[Finding], bool]:
    """Whether brokers answer, whether their topics are as wanted; and whether a broker answered at all."""
    embedded = not settings.feedback.bootstrap_servers
    where = settings.feedback.bootstrap_servers or f"127.0.0.1:{settings.console.broker_port}"
    try:
        topics = await ask("feedback", "topics", "check", "--json")
    except NotTold as error:
        if error.settings_at_fault:
            return [failed("broker", str(error), CORRECT)], False
        return [failed("broker", f"{where}: {error}", EMBED if embedded else START)], False
    found = [ok("broker", f"{where} answers{', embedded: it keeps nothing over a restart' if embedded else ''}")]
    wrong = [failed("topics", f"{one['name']} {'; '.join(one['faults'])}", APPLY) for one in topics if one["faults"]]
    wrong += [
        note("topics", f"{one['name']}: {'; '.join(one['differences'])}", ALTER) for one in topics if one["differences"]
    ]
    return [*found, *(wrong or [ok("topics", f"all {len(topics)} are as wanted")])], True


async def registry(settings: Settings) -> list[Finding]:
    try:
        check = await ask("registry", "check")
    except NotTold as error:
        return [failed("registry", str(error), "correct registry.url, or give this user the right to read it")]
    url = check["url"]
    if not check["exists"]:
        return [note("registry", f"nothing at {url} yet", "the server makes it when it first starts: 'foldback up'")]
    broken = [
        failed("registry", said, "'foldback rollback' returns to a whole version; restore this one's files from a copy")
        for said in check["broken"].values()
    ]
    if broken:
        return broken
    said = f"{url}: {check['versions']} versions, {check['active']} active"
    return [ok("registry", f"{said}; hashes right of {', '.join(check['verified'])}")]
