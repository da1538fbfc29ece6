// The table of messages: rows stay chosen from page to page of one search, and the age of the listing goes on.

export function start(dashboard) {
  const form = document.getElementById("choosing");
  const prefix = "chosen ";
  const boxes = () => [...document.querySelectorAll("input[name=queue_ids][form=choosing]")];

  // Not kept beyond the change that they were chosen for.
  const before = document.referrer && new URL(document.referrer);
  const came = before && before.origin === location.origin && before.pathname;
  if (location.pathname.startsWith("/operations/") && ["/preview", "/changes"].includes(came)) {
    Object.keys(sessionStorage).filter((key) => key.startsWith(prefix)).forEach((key) => sessionStorage.removeItem(key));
  }

  // Back to the search that one came from.
  if (came === "/messages") for (const link of document.querySelectorAll(".up a")) link.href = document.referrer;

  function writeAges() {
    const write = new Intl.RelativeTimeFormat(document.documentElement.lang);
    for (const each of document.querySelectorAll("[data-age-of]")) {
      const seconds = Math.max(0, Math.round(Date.now() / 1000 - each.dataset.ageOf));
      each.textContent = seconds < 90 ? write.format(-seconds, "second") : write.format(-Math.round(seconds / 60), "minute");
    }
  }
  if (document.querySelector("[data-age-of]")) {
    dashboard.onShow(writeAges);
    setInterval(() => document.hidden || writeAges(), 5000);
  }
  if (!form) return;

  const key = prefix + form.dataset.choosing;
  const counted = document.getElementById("chosen");
  const none = document.getElementById("choose-none");
  const fill = (text, count) => text.replace("{count}", new Intl.NumberFormat(document.documentElement.lang).format(count));

  function tell() {
    const { chosen } = dashboard;
    const here = boxes().filter((box) => box.checked).length;
    const text = fill(counted.dataset.text, chosen.size);
    const elsewhere = chosen.size > here ? ` (${fill(counted.dataset.elsewhere, chosen.size - here)})` : "";
    if (counted.textContent !== text + elsewhere) counted.textContent = text + elsewhere;
    none.hidden = chosen.size === 0;
    for (const button of form.querySelectorAll("button[name=action]")) button.disabled = chosen.size === 0;
    const all = document.getElementById("choose-page");
    if (all) {
      all.checked = here > 0 && here === boxes().length;
      all.indeterminate = here > 0 && !all.checked;
    }
    if (chosen.size) sessionStorage.setItem(key, [...chosen].join(" "));
    else sessionStorage.removeItem(key);
  }

  function setAll(root) {
    for (const box of root) dashboard.chosen[box.checked ? "add" : "delete"](box.value);
    document.dispatchEvent(new CustomEvent("chosen"));
  }

  for (const queueId of (sessionStorage.getItem(key) ?? "").split(" ").filter(Boolean)) dashboard.chosen.add(queueId);
  for (const box of boxes()) box.checked = dashboard.chosen.has(box.value);
  dashboard.onShow((root) => {
    const all = root.querySelector("#choose-page");
    if (all) all.hidden = false;
  });
  document.querySelector(".choose-page").hidden = true;
  document.addEventListener("chosen", tell);
  document.addEventListener("change", ({ target }) => {
    if (target.id !== "choose-page") return;
    for (const box of boxes()) box.checked = target.checked;
    setAll(boxes());
  });
  none.addEventListener("click", () => {
    dashboard.chosen.clear();
    for (const box of boxes()) box.checked = false;
    tell();
  });
  // Rows of this page are sent by their boxes, the others by one field more.
  const others = document.createElement("input");
  others.type = "hidden";
  others.name = "queue_ids";
  form.append(others);
  form.addEventListener("submit", () => {
    const here = new Set(boxes().map((box) => box.value));
    others.value = [...dashboard.chosen].filter((queueId) => !here.has(queueId)).join(" ");
    others.disabled = !others.value;
  });
  tell();
}
