"""An operator on the web page of a real `foldback up`: dead letters and raters."""

import re

import pytest
from playwright.async_api import Page, expect

from feedback.connection import admin_client, read_cluster_id
from feedback.event import Event, envelope
from feedback.producer import Producer
from feedback.submission import FEEDBACK_TYPE
from feedback.topics import FEEDBACK
from settings.feedback import FeedbackSettings
from tests.console.browser import arrive, keep, to
from tests.integration.stack import Stack

GARBAGE = Event(FEEDBACK, b"somebody", b"\xff\xff", envelope(event_id="garbage", type=FEEDBACK_TYPE, tenant="default"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def emit_garbage(stack: Stack) -> None:
    """What no release of ours would write reaches the feedback topic."""
    settings = FeedbackSettings(bootstrap_servers=f"127.0.0.1:{stack.ports['CONSOLE__BROKER_PORT']}")
    admin = admin_client(settings)
    producer = Producer(settings, read_cluster_id(admin))
    admin.close()
    try:
        producer.send_all([GARBAGE], 30.0)
    finally:
        producer.close()


async def test_a_dead_letter_is_found_read_and_sent_again(page: Page, live_stack: Stack) -> None:
    emit_garbage(live_stack)
    await to(page, "Feedback")
    await page.get_by_role("link", name="Why could they not be used?").click()
    letters = page.locator(".fb-letter").filter(has_text="UNDECODABLE")
    await expect(letters).to_have_count(1)
    await expect(letters).to_contain_text("not a message of ours")
    await letters.get_by_text("Where it came from").click()
    await expect(letters).to_contain_text(re.compile(r"letter 0:0, from foldback\.feedback\.v1/\d+/\d+"))
    await keep(page, "dead_letters")
    await page.get_by_role("button", name="Send letter 0:0 again").click()
    await expect(page.get_by_text("Letter 0:0: 1 sent again")).to_be_visible()
    # It is garbage still, so the trainer puts it aside once more.
    while await letters.count() < 2:
        await page.get_by_role("button", name="Look again").click()
        await page.wait_for_timeout(500)
    await page.get_by_role("button", name="UNDECODABLE 2").click()
    await expect(letters).to_have_count(2)


async def test_who_weighs_most(page: Page) -> None:
    await arrive(page, "/feedback/raters")
    await expect(page).to_have_title("Raters · Foldback")
    await expect(page.get_by_role("status")).to_contain_text(re.compile(r"\d+ judgements that count, of \d+ raters"))
    await expect(page.get_by_role("rowheader").first).to_contain_text("loves_e")
    await expect(page.get_by_role("row").nth(1)).to_contain_text("%")
    await expect(page.get_by_role("link", name="Feedback")).to_have_attribute("aria-current", "page")
    await keep(page, "raters")
