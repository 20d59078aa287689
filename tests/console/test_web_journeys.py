"""Whole journeys through the web page of a real `foldback up`, in a real browser."""

import asyncio
import json
import re
from contextlib import suppress

import grpc
import pytest
from playwright.async_api import Browser, Page, expect

from console.names import short_version
from console.scrape import scrape
from foldback.v1.policy_pb2 import POLICY_STATE_ACTIVE, POLICY_STATE_CANARY
from tests.console.browser import PHONE, address, arrive, keep, tab, to, width_beyond_screen
from tests.integration.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DRAWN = """() => {
  const canvas = document.querySelector("canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let points = 0, swaps = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    const [red, green, blue, opaque] = pixels.slice(i, i + 4);
    if (red === 99 && green === 102 && blue === 241) points++;
    if (red > 200 && green > 90 && green < 190 && blue < 120 && opaque > 100) swaps++;
  }
  return points > 50 && swaps > 20;
}"""
"""The chart holds points in indigo and swaps in amber."""
PAGES = ("", "compare", "learning", "versions", "feedback", "feedback/raters", "feedback/dead-letters")


async def at_rest(stack: Stack) -> str:
    """The version served once the trainer has seen the pause: what it was about to promote by then is promoted."""
    url = f"http://127.0.0.1:{stack.ports['TRAINER__METRICS_PORT']}/metrics"
    async with asyncio.timeout(90), stack.client() as client:
        while True:
            paused = (await scrape(url) or {}).get(("foldback_training_paused", ())) == 1
            listed = await client.list_policies()
            active, on_trial = (
                [policy.version for policy in listed.policies if policy.state == state]
                for state in (POLICY_STATE_ACTIVE, POLICY_STATE_CANARY)
            )
            if paused and on_trial:
                with suppress(grpc.aio.AioRpcError):  # decided on in this very moment
                    await client.promote(on_trial[0], "a test cuts the trial short")
            elif paused and active == [listed.serving_version]:
                return short_version(listed.serving_version)
            await asyncio.sleep(0.2)


async def short_answers(page: Page) -> None:
    await page.get_by_role("button", name="Options").click()
    await page.get_by_label("Longest answer, tokens").fill("24")
    await page.keyboard.press("Tab")
    await page.get_by_role("button", name="Options").click()


async def test_chat_rate_edit_and_see_what_became_of_it(page: Page) -> None:
    await short_answers(page)
    await page.get_by_label("Ask anything").fill("What is tea?")
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Good answer")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.keyboard.press("u")
    await expect(page.get_by_label("Good answer")).to_have_attribute("aria-pressed", "true")
    await expect(page.get_by_text("✓ in the event log")).to_be_visible()
    await page.keyboard.press("e")
    await expect(page.get_by_label("Your version")).to_be_focused()
    await page.get_by_label("Your version").fill("Leaves in hot water.")
    await keep(page, "edit")
    await page.get_by_role("button", name="Send my version").click()
    await expect(page.get_by_text("✓ your version is in the event log")).to_be_visible()
    await expect(page.get_by_role("log")).to_contain_text("Leaves in hot water.")

    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.keyboard.press("/")
    await expect(page.get_by_label("Ask anything")).to_be_focused()
    await page.keyboard.type("And coffee?")
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Good answer").nth(1)).to_be_visible()
    await keep(page, "chat")

    await to(page, "Feedback")
    mine = page.locator(".fb-vote")
    await expect(mine).to_have_count(2)
    for row in ("thumb up", "your version"):
        await expect(mine.filter(has_text=row)).to_contain_text(re.compile("joined|learned by p"))
    await expect(page.get_by_text("feedback accepted")).to_be_visible()
    await keep(page, "feedback")
    await to(page, "Chat")
    await expect(page.get_by_role("log")).to_contain_text("And coffee?")


async def test_rank_blind_with_a_tie_by_keyboard(page: Page, live_stack: Stack) -> None:
    await to(page, "Compare")
    await short_answers(page)
    box = page.get_by_label("A question for it")
    await box.fill("Which is best?")
    await box.press("Enter")
    await expect(page.get_by_text("Place the best answer first.")).to_be_visible()
    await expect(box).not_to_be_focused()
    shown = await page.locator(".nicegui-sub-pages").inner_text()
    assert not re.search(r"\bp\d", shown), "a version's name is no blind test"
    for key in ("3", "1", "=", "2"):
        await page.keyboard.press(key)
    await expect(page.get_by_text("3>1=2")).to_be_visible()
    await keep(page, "compare")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text(re.compile(r"✓ order 3>1=2 · in the event log · all by p\d+"))).to_be_visible()


async def test_how_it_learns(page: Page) -> None:
    await to(page, "Learning")
    await expect(page.get_by_text(re.compile(r"\d+ swaps? so far"))).to_be_visible()
    tiles = page.locator(".fb-tile")
    for name, value in {"Serving": r"p\d+", "Training": r"running|waits for \d+ more judgements?",
                        "PPO iterations": r"\d+", "Reward": r"[+-].*σ", "Last win rate": r"\d+%",
                        "From the reference": r"nats"}.items():  # fmt: skip
        tile = tiles.filter(has=page.get_by_text(name, exact=True))
        await expect(tile.locator("dd")).to_have_text(re.compile(value))
    # Something is drawn in the three diagrams: pixels of the points' and of the swaps' colour.
    await expect(page.locator("canvas")).to_be_visible()
    await page.wait_for_function(DRAWN)
    await keep(page, "learning")


async def test_roll_back_and_promote_again(page: Page, live_stack: Stack) -> None:
    await to(page, "Versions")
    await page.get_by_role("button", name="Pause training").click()
    await expect(page.get_by_role("button", name="Resume training")).to_be_visible()
    before = await at_rest(live_stack)
    serving = page.locator(".fb-serving h2")
    await expect(serving).to_have_text(before)
    await expect(page.locator(".fb-serving")).to_contain_text("win rate")
    await keep(page, "versions")
    await page.get_by_role("button", name="Roll back").click()
    why = page.get_by_label("Why (others will read it)")
    await why.fill("a browser says so")
    await keep(page, "roll_back")
    await why.press("Enter")
    await expect(page.get_by_text(re.compile("is serving again"))).to_be_visible()
    await expect(serving).not_to_have_text(before)
    told = json.loads(live_stack.command("policies", "--json").stdout)
    assert "a browser says so" in json.dumps(told)
    assert told["training_state"] == "TRAINING_STATE_PAUSED"

    await page.get_by_role("button", name=f"Promote {before}", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    await expect(serving).to_have_text(before)
    await expect(page.locator(".fb-pill")).to_have_text(f"serving {before}")
    await page.get_by_role("button", name="Resume training").click()
    await expect(page.get_by_role("button", name="Pause training")).to_be_visible()


async def test_the_keyboard_reaches_everything(page: Page) -> None:
    await expect(page.get_by_label("Ask anything")).to_be_focused()
    await arrive(page, "/versions")
    await expect(page.get_by_role("button", name="Roll back")).to_be_visible()
    seen = []
    for _ in range(9):
        await page.keyboard.press("Tab")
        seen.append(await page.evaluate("(document.activeElement.innerText || '').trim().split('\\n').pop()"))
    assert seen[0] == "Skip to the page"
    assert {"Chat", "Compare", "Learning", "Versions", "Feedback", "Roll back"} <= set(seen), seen


async def test_it_fits_a_phone_and_works_there(browser: Browser, live_stack: Stack) -> None:
    async with tab(browser, address(live_stack), **PHONE) as phone:
        for name in PAGES:
            await arrive(phone, f"/{name}")
            await expect(phone.get_by_role("heading", level=1)).to_have_count(1)
            await expect(phone.locator(".fb-pill")).to_contain_text("serving p")
            await expect(phone.get_by_text("Reading the")).to_have_count(0)
            assert await width_beyond_screen(phone) == 0, name
            await keep(phone, f"phone_{name.rpartition('/')[2] or 'chat'}")
        bar = await phone.get_by_role("navigation", name="Pages").bounding_box()
        assert bar is not None
        assert bar["y"] + bar["height"] == pytest.approx(740, abs=1), "the pages' bar is where the thumb is"
        await to(phone, "Compare")
        await phone.get_by_label("A question for it").fill("Short?")
        await phone.get_by_role("button", name="Send").tap()
        await phone.get_by_role("button", name="Next best").first.tap()
        await expect(phone.get_by_text("best", exact=True)).to_be_visible()
        await keep(phone, "phone_ranking")
