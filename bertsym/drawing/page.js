"use strict";
(() => {
  // nodes: {name, op, card, attrs, inputs: [[node, output, shape]], parameters: [[name, shape]], shapes, readers, kind}
  const { nodes, cards } = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("panel");
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  let chosen = null;

  // Insert names only as text, never as markup.
  const make = (tag, text, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };

  const section = (title, content) => {
    panel.append(make("h3", title), content);
  };

  const list = (entries) => {
    const ul = make("ul");
    for (const [name, note, target] of entries) {
      const li = make("li");
      const label = make(target === null ? "span" : "button", name, "name");
      if (target !== null) {
        label.type = "button";
        label.addEventListener("click", () => show(target));
      }
      li.append(label);
      if (note) li.append(make("small", note));
      ul.append(li);
    }
    return ul;
  };

  const describe = (number) => {
    const node = nodes[number];
    panel.replaceChildren();
    const heading = make("h2", node.op === "null" ? "input" : node.op);
    const swatch = make("i");
    swatch.style.background = `var(--${node.kind}-fill)`;
    swatch.style.borderColor = `var(--${node.kind}-line)`;
    heading.prepend(swatch);
    panel.append(heading, make("p", node.name, "name"), make("p", `in ${cards[node.card]}`, "place"));
    if (node.highlighted) panel.append(make("span", "[CLS] slice", "badge"));
    const attributes = Object.entries(node.attrs);
    if (attributes.length) {
      const dl = make("dl");
      for (const [key, value] of attributes) dl.append(make("dt", key), make("dd", value));
      section("Attributes", dl);
    }
    if (node.inputs.length) {
      const entries = node.inputs.map(([from, output, shape]) => [
        nodes[from].name + (output ? `:${output}` : ""), shape, from]);
      section("Reads", list(entries));
    }
    if (node.parameters.length) {
      section("Parameters", list(node.parameters.map(([name, shape]) => [name, shape, null])));
    }
    if (node.shapes.length) {
      section("Writes", list(node.shapes.map(([output, shape]) => [shape, output ? `output ${output}` : "", null])));
    }
    if (node.readers.length) {
      section("Read by", list(node.readers.map((reader) => [nodes[reader].name, cards[nodes[reader].card], reader])));
    }
  };

  const choose = (number) => {
    if (chosen) chosen.classList.remove("chosen");
    chosen = document.getElementById(`n${number}`);
    chosen.classList.add("chosen");
    describe(number);
  };

  /** Open the card of a node, scroll to the node, and describe it. */
  const show = (number) => {
    const box = document.getElementById(`n${number}`);
    box.closest("details").open = true;
    choose(number);
    box.focus({ preventScroll: true });
    box.scrollIntoView({ block: "center", inline: "center" });
  };

  const activate = (event) => {
    const box = event.target.closest("[data-node]");
    if (!box) return;
    event.preventDefault();
    const number = Number(box.dataset.node);
    // A stub links to the node at its other end.
    if (box.classList.contains("stub")) show(number); else choose(number);
  };
  const main = document.querySelector("main");
  main.addEventListener("click", activate);
  main.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") activate(event);
  });
  main.addEventListener("focusin", (event) => {
    const box = event.target.closest("g.box[data-node]");
    if (box) choose(Number(box.dataset.node));
  });

  const matches = (text) => {
    const wanted = text.toLowerCase();
    const hits = [];
    nodes.forEach((node, number) => {
      if (!node) return;
      if (node.name.toLowerCase().includes(wanted)) hits.push([node.name, number]);
      for (const [name] of node.parameters) {
        if (name.toLowerCase().includes(wanted)) hits.push([name, number]);
      }
    });
    const rank = ([name]) => (name === text ? 0 : name.toLowerCase().startsWith(wanted) ? 1 : 2);
    return hits.sort((one, other) => rank(one) - rank(other));
  };

  const close = () => { found.hidden = true; found.replaceChildren(); };

  search.addEventListener("input", () => {
    close();
    if (!search.value) return;
    const hits = matches(search.value);
    for (const [name, number] of hits.slice(0, 10)) {
      const button = make("button", name, "name");
      button.type = "button";
      const node = nodes[number];
      const role = name === node.name ? node.op === "null" ? "input" : node.op : `parameter of ${node.op}`;
      button.append(make("small", `${role} in ${cards[node.card]}`));
      button.addEventListener("click", () => { close(); show(number); });
      const li = make("li");
      li.append(button);
      found.append(li);
    }
    if (hits.length !== found.childElementCount) found.append(make("li", `and ${hits.length - 10} more`, "none"));
    if (!hits.length) found.append(make("li", "no name contains this text", "none"));
    found.hidden = false;
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") {
      const first = found.querySelector("button");
      if (first) first.click();
    } else if (event.key === "ArrowDown") {
      const first = found.querySelector("button");
      if (first) { event.preventDefault(); first.focus(); }
    } else if (event.key === "Escape") {
      close();
    }
  });
  found.addEventListener("keydown", (event) => {
    const buttons = [...found.querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") { close(); search.focus(); }
    if (!step) return;
    event.preventDefault();
    const next = buttons.indexOf(document.activeElement) + step;
    (buttons[next] || search).focus();
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".search")) close();
  });

  const setAll = (open) => {
    for (const details of document.querySelectorAll("details")) details.open = open;
  };
  document.getElementById("open-all").addEventListener("click", () => setAll(true));
  document.getElementById("fold-all").addEventListener("click", () => setAll(false));

  document.getElementById("tools").hidden = false;
  panel.hidden = false;
})();
