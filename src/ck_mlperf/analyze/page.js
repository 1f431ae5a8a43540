"use strict";
(() => {
  const form = document.getElementById("filters");
  const selects = [...form.querySelectorAll("select")];
  const focusable = "a, button, select, summary, [tabindex]";

  let sorted = null;  // the column that was chosen, and 1 or -1

  function sortPoints() {
    const table = document.getElementById("points");
    const heads = table.tHead.rows[0].cells;
    for (const head of heads) {
      if (head.firstElementChild) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.textContent = head.textContent;
      head.replaceChildren(button);
    }
    if (!sorted) return;
    for (const head of heads) head.removeAttribute("aria-sort");
    const { column, sign } = sorted;
    heads[column].setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const keyed = [...table.tBodies].map((point) => {
      const cell = point.rows[0].cells[column];
      return [cell.dataset.sort ?? cell.textContent.trim(), point];
    });
    const isNumber = heads[column].classList.contains("number");
    const order = isNumber ? (a, b) => a - b : new Intl.Collator("en", { numeric: true }).compare;
    // What is not known is last.
    keyed.sort(([a], [b]) => (a === "") - (b === "") || sign * order(a, b));
    table.append(...keyed.map(([, point]) => point));
  }

  function applyFilters() {
    const points = [...document.querySelectorAll("tbody.point")];
    const shown = new Set();
    for (const point of points) {
      point.hidden = selects.some((one) => one.value && point.dataset[one.name] !== one.value);
      if (!point.hidden) shown.add(point.id);
    }
    for (const element of document.querySelectorAll("[data-points]")) {
      const isShown = element.dataset.points.split(" ").some((id) => shown.has(id));
      element.classList.toggle("filtered", !isShown);
    }
    // Of each finding, the fastest VALID point that is shown.
    const found = new Set();
    for (const row of document.querySelectorAll("[data-finding]")) {
      const { finding, ids } = row.dataset;
      row.hidden = found.has(finding) || !ids.split(" ").some((id) => shown.has(id));
      if (!row.hidden) found.add(finding);
    }
    sortPoints();
    for (const figure of document.querySelectorAll("figure.plot")) {
      figure.hidden = !figure.querySelector("[data-points]:not(.filtered)");
    }
    document.getElementById("shown").textContent = `${shown.size} of ${points.length} points`;
    for (const button of document.querySelectorAll("button.copy")) button.hidden = false;
  }

  async function copy(button) {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {  // not allowed here: select it, so that the keyboard can
      getSelection().selectAllChildren(code);
    }
  }

  form.hidden = false;
  form.addEventListener("change", applyFilters);
  form.addEventListener("reset", () => setTimeout(applyFilters));
  document.addEventListener("click", (event) => {
    if (event.target.matches("button.copy")) copy(event.target);
    if (event.target.matches("button.sort")) {
      const column = event.target.parentElement.cellIndex;
      sorted = { column, sign: sorted?.column === column ? -sorted.sign : 1 };
      sortPoints();
    }
  });
  // A link to a point that a filter hides shows it.
  addEventListener("hashchange", () => {
    const point = document.getElementById(location.hash.slice(1));
    if (point?.hidden) form.reset();
    point?.scrollIntoView();
  });

  // What the server sent, by id: the page itself changes as details are opened and points hidden.
  const sources = new Map();
  const parts = (page) => page.querySelectorAll("[data-live] > [id]");
  for (const part of parts(document)) sources.set(part.id, part.outerHTML);
  applyFilters();

  let version = document.documentElement.dataset.version;
  if (!version) return;

  function takeOver(part, old) {
    const open = [...old.querySelectorAll("details[open]")].map((details) => details.id);
    const place = [...old.querySelectorAll(focusable)].indexOf(document.activeElement);
    old.replaceWith(part);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (place >= 0) part.querySelectorAll(focusable)[place]?.focus({ preventScroll: true });
  }

  function update(page) {
    for (const live of page.querySelectorAll("[data-live]")) {
      const here = document.getElementById(live.id);
      const wanted = [...live.children].map((part) => {
        const old = document.getElementById(part.id);
        if (old && sources.get(part.id) === part.outerHTML) return old;
        sources.set(part.id, part.outerHTML);
        const fresh = document.adoptNode(part);
        if (old) takeOver(fresh, old);
        return fresh;
      });
      wanted.forEach((part, place) => {
        if (here.children[place] !== part) here.insertBefore(part, here.children[place] ?? null);
      });
      while (here.children.length > wanted.length) here.lastElementChild.remove();
    }
    for (const select of selects) {
      const { value } = select;
      const fresh = page.getElementById(select.id);
      if (fresh.innerHTML === select.innerHTML) continue;
      select.replaceChildren(...fresh.children);
      select.value = value;
      if (select.selectedIndex < 0) select.selectedIndex = 0;
    }
    document.title = page.title;
    applyFilters();
  }

  const status = document.getElementById("live");
  const says = status.textContent;
  async function refresh() {
    let isLost = false;
    try {
      const answer = await fetch("/", { headers: { "If-None-Match": version }, cache: "no-store" });
      if (answer.ok) {
        version = answer.headers.get("ETag");
        update(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } else isLost = answer.status !== 304;
    } catch { isLost = true; }
    const text = isLost ? "The server does not answer: this is what it last said." : says;
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("lost", isLost);
    setTimeout(refresh, 2000);
  }
  setTimeout(refresh, 2000);
})();
