// The page: signing in, choosing a channel, and joining the parts that show it.

import { Api, Problem } from "./api.js";
import { byId, count, setText } from "./dom.js";
import { ChannelView } from "./channel.js";
import { showProblem } from "./panels.js";

const KEY_SLOT = "freshet.key";
const DEMO_KEY = "demo-key";

let api = null;
let view = null;

function stored() {
  try {
    return sessionStorage.getItem(KEY_SLOT);
  } catch {
    return null;
  }
}

function store(key) {
  try {
    if (key === null) sessionStorage.removeItem(KEY_SLOT);
    else sessionStorage.setItem(KEY_SLOT, key);
  } catch {
    // Storage may be refused; then the key lasts as long as the page.
  }
}

function showSignIn(problem) {
  view?.stop();
  view = null;
  api = null;
  for (const id of ["work", "channel", "connection", "reconnect", "sign-out"]) byId(id).hidden = true;
  byId("sign-in").hidden = false;
  if (byId("api-key").value === "") byId("api-key").value = stored() ?? DEMO_KEY;
  showProblem(byId("sign-in-error"), problem);
  byId("api-key").select();
  byId("api-key").focus();
  document.title = "Freshet";
}

async function signIn(key) {
  const button = byId("sign-in-submit");
  button.disabled = true;
  setText(button, "Signing in…");
  api = new Api(key);
  try {
    const [sets, environments] = await Promise.all([api.sets(), api.environments()]);
    if (sets.length === 0 || environments.length === 0) {
      throw new Problem(0, { title: "Nothing to show", detail: "This tenant has no config set or no environment yet. Make one with POST /v1/environments and POST /v1/sets, then sign in again." });
    }
    store(key);
    fill(byId("environment"), environments, remembered().environment);
    fill(byId("set"), sets, remembered().set);
    await chooseSet();
    for (const id of ["work", "channel", "connection", "reconnect", "sign-out"]) byId(id).hidden = false;
    byId("sign-in").hidden = true;
    byId("keys-title").focus();
  } catch (problem) {
    if (problem.status === 401 || problem.status === 403) store(null);
    showSignIn(problem);
  } finally {
    button.disabled = false;
    setText(button, "Sign in");
  }
}

function fill(select, names, wanted) {
  select.replaceChildren(...names.map((name) => new Option(name, name, false, name === wanted)));
}

/** The channel in the address, so that a link and a reload lead to the same place. */
function remembered() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

async function chooseSet() {
  const apps = await api.apps(byId("set").value);
  fill(byId("app"), apps, remembered().app);
  if (apps.length === 0) {
    throw new Problem(0, { title: "No app reads this set", detail: `Make one with POST /v1/sets/${byId("set").value}/apps.` });
  }
  openChannel();
}

function openChannel() {
  const channel = { environment: byId("environment").value, set: byId("set").value, app: byId("app").value };
  history.replaceState(null, "", `#${new URLSearchParams(channel)}`);
  document.title = `${channel.set}/${channel.app} · ${channel.environment} · Freshet`;
  showProblem(byId("notice"), null);
  view?.stop();
  view = new ChannelView(api, channel, { onRejectedKey });
  view.start();
}

function onRejectedKey(detail) {
  store(null);
  showSignIn(new Problem(401, { title: "The key was refused", detail, reasonCodes: ["auth.unauthorized"] }));
}

/** Asks before staged edits are lost; answers whether to go on. */
function mayLeave() {
  const staged = view?.stagedCount ?? 0;
  return staged === 0 || window.confirm(`${count(staged, "staged change")} will be lost. Go on?`);
}

function wireChannel() {
  const again = async (change) => {
    if (!mayLeave()) {
      const { channel } = view;
      for (const name of ["environment", "set", "app"]) byId(name).value = channel[name];
      return;
    }
    try {
      await change();
    } catch (problem) {
      showProblem(byId("notice"), problem);
    }
  };
  byId("environment").addEventListener("change", () => again(openChannel));
  byId("app").addEventListener("change", () => again(openChannel));
  byId("set").addEventListener("change", () => again(chooseSet));
  byId("channel").addEventListener("submit", (event) => event.preventDefault());
}

function wireTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const current = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = current === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("freshet.theme", root.dataset.theme);
    } catch {
      // Storage may be refused; then the choice lasts as long as the page.
    }
  });
}

function wireKeys() {
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, textarea, select");
    if (event.key === "/" && !isTyping && !byId("work").hidden) {
      event.preventDefault();
      byId("filter").focus();
    }
  });
  window.addEventListener("beforeunload", (event) => {
    if (view?.stagedCount) event.preventDefault();
  });
  window.addEventListener("online", () => view?.reconnect());
}

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("api-key").value.trim();
  if (key === "") {
    showProblem(byId("sign-in-error"), new Problem(0, { title: "A key is needed", detail: "Paste the API key of your tenant." }));
    return;
  }
  signIn(key);
});
byId("use-demo").addEventListener("click", () => {
  byId("api-key").value = DEMO_KEY;
  byId("api-key").focus();
});
byId("sign-out").addEventListener("click", () => {
  if (!mayLeave()) return;
  store(null);
  byId("api-key").value = "";
  showSignIn(null);
});
byId("reconnect").addEventListener("click", () => view?.reconnect());
wireChannel();
wireTheme();
wireKeys();

const key = stored();
if (key) signIn(key);
else showSignIn(null);
