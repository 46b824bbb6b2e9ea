// The page in a headless browser against the real server: what an operator does, and what two of
// them see.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { chromium } from "playwright-core";
import { Server } from "../clients/server.mjs";

const CHROMIUM = process.env.FRESHET_CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
// A folder for screenshots; none are taken without it.
const SHOTS = process.env.FRESHET_SCREENSHOTS;
const WAIT = { timeout: 20_000, polling: 50 };

const run = promisify(execFile);
let server;
let browser;
let context;
let first;
let second;
const complaints = [];
const requested = new Set();

before(async () => {
  server = await Server.start(["--drain-window", "500ms"]);
  browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, args: FLAGS });
  context = await browser.newContext({ viewport: { width: 1440, height: 1000 }, colorScheme: "light" });
  [first, second] = [await open(), await open()];
});

after(async () => {
  await browser?.close();
  await server?.dispose();
});

async function open() {
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.stack}`));
  page.on("console", (message) => {
    // The browser itself logs each answer of 400 or above and each lost socket; both are provoked.
    const isProvoked = /Failed to load resource|WebSocket connection to/.test(message.text());
    if (message.type() === "error" && !isProvoked) complaints.push(message.text());
  });
  page.on("request", (request) => requested.add(new URL(request.url()).origin));
  await page.goto(server.url);
  return page;
}

async function signIn(page) {
  await page.locator("#sign-in-submit").click();
  await page.locator("#work").waitFor();
}

async function text(page, selector, wanted) {
  const matches = ([selector, wanted]) => document.querySelector(selector)?.textContent.includes(wanted);
  try {
    await page.waitForFunction(matches, [selector, wanted], WAIT);
  } catch {
    const seen = await page.locator(selector).allTextContents();
    assert.fail(`${selector} should say ${JSON.stringify(wanted)}, and says ${JSON.stringify(seen)}`);
  }
}

const row = (key) => `#rows tr[data-key="${key}"]`;
const valueOf = (page, key, json) => text(page, `${row(key)} .value`, json);

/** A publish by someone else: curl, as the README shows it. */
async function curlPublish(changes) {
  const body = JSON.stringify({ environment: "prod", set: "storefront", app: "web", layer: "app", changes });
  const { stdout } = await run("curl", ["-sS", "--fail-with-body", "-X", "POST", `${server.url}/v1/config/publish`,
    "-H", "Authorization: Bearer demo-key", "-H", "Content-Type: application/json", "-d", body]);
  return JSON.parse(stdout);
}

/** The page holds `revision` and has checked it. */
async function verified(page, revision) {
  await text(page, "#head-revision", String(revision));
  await page.waitForFunction(([outcome, revision]) => {
    const { dataset } = document.querySelector("#integrity");
    return dataset.outcome === outcome && Number(dataset.revision) >= revision;
  }, ["verified", revision], WAIT);
}

async function shoot(page, name) {
  if (!SHOTS) return;
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}

test("a key that is unknown is refused with the problem and what to do", async () => {
  await first.locator("#api-key").fill("not-a-key");
  await first.locator("#sign-in-submit").click();
  await text(first, "#sign-in-error", "401");
  assert.ok(await first.locator("#sign-in").isVisible());
  await shoot(first, "refused");
});

test("the demo key is filled in and opens the demo set, whose hash and signature hold", async () => {
  await first.reload();
  assert.equal(await first.locator("#api-key").inputValue(), "demo-key");
  await signIn(first);
  // One chooses the channel by hand, the other comes with a link to it.
  await first.locator("#app").selectOption("web");
  await second.goto(`${server.url}/#environment=prod&set=storefront&app=web`);
  await signIn(second);
  for (const page of [first, second]) {
    await text(page, "#connection-text", "Live");
    await text(page, "#tenant", "demo");
    const { revision } = await server.request("GET", "/v1/config?env=prod&set=storefront&app=web");
    await verified(page, revision);
    await text(page, "#signature", "signature valid");
  }
  const { items } = await server.request("GET", "/v1/config?env=prod&set=storefront&app=web");
  assert.ok(Object.keys(items).length >= 40, "the demo set has some fifty keys");
  assert.equal(await first.locator("#rows tr").count(), Object.keys(items).length);
});

test("a publish by curl arrives live, flashes its row, and is verified", async () => {
  const answer = await curlPublish({ set: { "features/from-curl": { on: true, share: 0.25 } }, unset: [] });
  for (const page of [first, second]) {
    await valueOf(page, "features/from-curl", '{"on":true,"share":0.25}');
    await verified(page, answer.revision);
    await text(page, `${row("features/from-curl")} .changed`, `r${answer.revision}`);
    assert.match(await page.locator(row("features/from-curl")).getAttribute("class"), /flash/);
    await text(page, "#latency-detail", "commit → applied");
  }
});

test("a value edited in one tab is seen in the other, and its latency is measured", async () => {
  await first.locator(`${row("features/from-curl")} button[aria-label^=Edit]`).click();
  const editor = first.locator(`${row("features/from-curl")} textarea`);
  await editor.fill('{"on": fals');
  await text(first, "#edit-error", "Not JSON");
  await editor.press("Control+Enter");
  assert.ok(await first.locator("#staged").isHidden(), "what is not JSON is not staged");
  await editor.fill('{"share": 0.5, "on": true}');
  await editor.press("Control+Enter");
  await text(first, "#staged-count", "1 change");
  await valueOf(first, "features/from-curl", "staged");
  await shoot(first, "staged");
  await first.locator("#publish").click();
  for (const page of [first, second]) await valueOf(page, "features/from-curl", '{"on":true,"share":0.5}');
  await text(first, "#latency-detail", "request here");
  await text(second, "#latency-detail", "commit → applied");
  assert.ok(await first.locator("#staged").isHidden());
  assert.match(await first.locator("#latency").textContent(), /^\d+(\.\d)? m?s$/);
});

test("a key is added and deleted with the keyboard alone", async () => {
  await first.locator("#add").focus();
  await first.keyboard.press("Enter");
  await first.keyboard.type("features/typed");
  await first.keyboard.press("Tab");
  await first.keyboard.type('"by hand"');
  await first.keyboard.press("Enter");
  await text(first, "#staged-count", "1 change");
  await first.locator("#publish").focus();
  await first.keyboard.press("Enter");
  await valueOf(second, "features/typed", '"by hand"');
  await first.locator(`${row("features/typed")} button[aria-label^=Delete]`).focus();
  await first.keyboard.press("Enter");
  await first.locator("#publish").focus();
  await first.keyboard.press("Enter");
  for (const page of [first, second]) await page.locator(row("features/typed")).waitFor({ state: "detached" });
});

test("the filter narrows the table to keys and values that contain it", async () => {
  await first.keyboard.press("Escape");
  await first.locator("#keys-title").focus();
  await first.keyboard.press("/");
  await first.keyboard.type("from-curl");
  await first.waitForFunction(() => document.querySelectorAll("#rows tr").length === 1, null, WAIT);
  await first.locator("#filter").fill("no such thing");
  await text(first, "#keys-empty", "No key or value contains");
  await first.locator("#filter").fill("");
});

test("a change that breaks a rule is refused with its violations, and stays staged", async () => {
  await first.locator("#add").click();
  await first.locator("#add-key").fill("test/too-large");
  await first.locator("#add-value").fill("9007199254740993");
  await first.locator("#add-form button[type=submit]").click();
  await first.locator("#publish").click();
  await text(first, "#publish-error", "422");
  assert.ok(await first.locator("#publish-error li").count() > 0, "each violation is listed");
  await text(first, "#staged-count", "1 change");
  await shoot(first, "violations");
  await first.locator("#discard").click();
  assert.ok(await first.locator("#staged").isHidden());
});

test("the convergence panel counts both tabs at the head, and that they applied it", async () => {
  const { revision } = await curlPublish({ set: { "features/from-curl": "counted" }, unset: [] });
  await text(first, "#at-head-detail", `2 of 2 subscribers at revision ${revision}`);
  await text(first, "#at-head", "100%");
  await text(first, `#revision-rows tr[data-revision="${revision}"]`, `r${revision}head22`);
  await first.locator("#convergence-chart .line").waitFor({ state: "attached" });
});

test("a rollback from the versions list brings the old value back everywhere", async () => {
  const before = await curlPublish({ set: { "features/from-curl": "before" }, unset: [] });
  const changed = await curlPublish({ set: { "features/from-curl": "after" }, unset: [] });
  await valueOf(first, "features/from-curl", '"after"');
  await text(first, `#versions li[data-revision="${changed.revision}"]`, "head");
  await first.locator(`#versions li[data-revision="${before.revision}"] button`).click();
  await first.locator("#confirm-yes").click();
  for (const page of [first, second]) await valueOf(page, "features/from-curl", '"before"');
  await verified(first, changed.revision + 1);
  await text(first, "#versions li:first-child", "rollback");
  await shoot(first, "light");
});

test("a dropped connection resumes unchanged from its cursor", async () => {
  await first.locator("#reconnect").click();
  await first.locator('#connection[data-state="live"][data-mode="unchanged"]').waitFor();
  await text(first, "#log", "unchanged");
});

test("the page lives through a restart of the server and resumes from its cursor", async () => {
  await server.terminate();
  await first.locator('#connection[data-state="waiting"]').waitFor();
  await server.start();
  const { revision } = await curlPublish({ set: { "features/from-curl": "after the restart" }, unset: [] });
  for (const page of [first, second]) {
    await valueOf(page, "features/from-curl", '"after the restart"');
    await verified(page, revision);
    const mode = await page.locator("#connection").getAttribute("data-mode");
    assert.ok(["unchanged", "delta"].includes(mode), `resumed with ${mode}`);
  }
});

test("a reload keeps the session and the channel, and a sign-out ends it", async () => {
  await second.reload();
  await text(second, "#connection-text", "Live");
  assert.match(second.url(), /#environment=prod&set=storefront&app=web$/);
  await second.locator("#sign-out").click();
  await second.locator("#sign-in").waitFor();
  await second.reload();
  assert.ok(await second.locator("#sign-in").isVisible());
});

test("light and dark follow the system until one is chosen", async () => {
  const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await background(first);
  await first.emulateMedia({ colorScheme: "dark" });
  const dark = await background(first);
  assert.notEqual(dark, light);
  await shoot(first, "dark");
  await first.locator("#theme").click();
  assert.equal(await background(first), light);
  await first.reload();
  await text(first, "#connection-text", "Live");
  assert.equal(await background(first), light, "the choice outlives a reload");
});

test("every control has a name, and text has the contrast of WCAG AA in both themes", async () => {
  for (const theme of ["light", "dark"]) {
    const found = await first.evaluate((theme) => {
      document.documentElement.dataset.theme = theme;
      const nameless = [...document.querySelectorAll("button, input, select, textarea")]
        .filter((element) => !(element.ariaLabel || element.labels?.length || element.textContent.trim()))
        .map((element) => element.outerHTML);
      const style = getComputedStyle(document.documentElement);
      const luminance = (name) => {
        const hex = style.getPropertyValue(name).trim();
        const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
          .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const contrast = (one, two) => {
        const [dark, light] = [luminance(one), luminance(two)].sort((a, b) => a - b);
        return (light + 0.05) / (dark + 0.05);
      };
      const texts = ["--text", "--muted", "--accent", "--good", "--warn", "--bad"];
      const pairs = texts.flatMap((name) => ["--bg", "--surface", "--sunken"].map((ground) => [name, ground]));
      pairs.push(["--accent-text", "--accent"], ["--text", "--accent-soft"], ["--text", "--bad-soft"], ["--muted", "--bad-soft"]);
      const weak = pairs.filter(([one, two]) => contrast(one, two) < 4.5).map(([one, two]) => `${one} on ${two}: ${contrast(one, two).toFixed(2)}`);
      return { nameless, weak };
    }, theme);
    assert.deepEqual(found, { nameless: [], weak: [] }, theme);
  }
});

test("the page asked no other origin for anything and raised no error", () => {
  assert.deepEqual([...requested], [new URL(server.url).origin]);
  assert.deepEqual(complaints, []);
});
