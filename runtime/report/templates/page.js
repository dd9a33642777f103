"use strict";
// Sortable tables: a click on a heading sorts by it, a second click turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const text = row.cells[column].dataset.value ?? row.cells[column].textContent;
        const number = Number(text);
        return text.trim() === "" || Number.isNaN(number) ? text : number;
      };
      const order = (a, b) =>
        typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      const rows = [...body.rows].sort((a, b) => order(key(a), key(b)));
      if (down) rows.reverse();
      body.append(...rows);
    });
  });
}

// The explorer. Everything is in units of sigma. Interpolation of the small table is for drawing only.
(() => {
  const kinds = JSON.parse(document.getElementById("explorer-data").textContent);
  const byId = (id) => document.getElementById(id);
  const names = ["z", "size", "angle"];

  // Phi(x) by the series of its density: enough for a label.
  const normal = (x) => {
    let sum = x, term = x;
    for (let k = 1; k < 60; k++) { term *= (x * x) / (2 * k + 1); sum += term; }
    return 0.5 + (sum * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);
  };
  const place = (axis, x) => {
    let i = 0;
    while (i < axis.length - 2 && axis[i + 1] <= x) i++;
    const t = (x - axis[i]) / (axis[i + 1] - axis[i]);
    return [i, Math.min(Math.max(t, 0), 1)];
  };
  // Radius in direction theta (degrees from the direction against the gradient): z over the interpolated z / r.
  const radius = (data, z, rho, theta) => {
    const [i, a] = place(data.z, z), [j, b] = place(data.rho, rho), [k, c] = place(data.theta, theta);
    const J = data.rho.length, K = data.theta.length;
    let ratio = 0;
    for (const [di, wi] of [[0, 1 - a], [1, a]])
      for (const [dj, wj] of [[0, 1 - b], [1, b]])
        for (const [dk, wk] of [[0, 1 - c], [1, c]])
          ratio += wi * wj * wk * data.ratio[((i + di) * J + j + dj) * K + k + dk];
    return (z * kinds.steps) / ratio;
  };
  const path = (points) => "M" + points.map(([x, y]) => x.toFixed(2) + " " + (-y).toFixed(2)).join("L") + "Z";
  const ball = (p, r) => {
    if (p === "l1") return [[r, 0], [0, r], [-r, 0], [0, -r]];
    if (p === "linf") return [[r, r], [-r, r], [-r, -r], [r, -r]];
    return [...Array(120).keys()].map((i) => [r * Math.cos((i * Math.PI) / 60), r * Math.sin((i * Math.PI) / 60)]);
  };

  const draw = () => {
    const [z, size, angle] = names.map((name) => Number(byId("explorer-" + name).value));
    const rho = size / 100, turn = (angle * Math.PI) / 180;
    const g = [Math.cos(turn), Math.sin(turn)];
    const p = document.querySelector("input[name=explorer-norm]:checked").value;
    const known = document.querySelector("input[name=explorer-known]:checked").value;
    // One unit of the picture is such that the zeroth-order disc always has the same size.
    const scale = 52 / z;
    const directions = [...Array(240).keys()].map((i) => [Math.cos((i * Math.PI) / 120), Math.sin((i * Math.PI) / 120)]);
    const radii = (kind) => directions.map((v) => {
      const along = Math.min(Math.max(-(v[0] * g[0] + v[1] * g[1]), -1), 1);
      const theta = (Math.acos(along) * 180) / Math.PI, first = radius(kinds.gradient, z, rho, theta);
      // More information never certifies less; the copies are coarse.
      return kind === "gradient" ? first : Math.max(first, radius(kinds[kind], z, rho, theta));
    });
    const outline = (radii) =>
      path(radii.map((r, i) => directions[i].map((x) => Math.min(scale * r, 400) * x)));
    const reach = radii(known);
    byId("explorer-region").setAttribute("d", outline(reach));
    byId("explorer-first").setAttribute("d", known === "gradient" ? "" : outline(radii("gradient")));
    byId("explorer-arrow").setAttribute("d", "M0 0L" + (46 * rho * g[0]).toFixed(2) + " " + (-46 * rho * g[1]).toFixed(2));
    const foot = [-52 * g[0], -52 * g[1]], along = [-g[1] * 300, g[0] * 300];
    byId("explorer-limit").setAttribute("d",
      "M" + (foot[0] - along[0]).toFixed(2) + " " + (-(foot[1] - along[1])).toFixed(2) +
      "L" + (foot[0] + along[0]).toFixed(2) + " " + (-(foot[1] + along[1])).toFixed(2));

    // The largest ball of the norm that fits.
    const norms = { l1: (v) => Math.abs(v[0]) + Math.abs(v[1]), l2: () => 1, linf: (v) => Math.max(Math.abs(v[0]), Math.abs(v[1])) };
    const fits = Math.min(...reach.map((r, i) => r * norms[p](directions[i]))), zeroth = z / (p === "linf" ? Math.SQRT2 : 1);
    byId("explorer-ball").setAttribute("d", path(ball(p, scale * fits)));
    byId("explorer-ball0").setAttribute("d", path(ball(p, scale * zeroth)));
    byId("explorer-bar").textContent = (26 / scale).toFixed(2) + " σ";
    byId("explorer-z-value").textContent = "q = " + normal(z).toFixed(normal(z) > 0.99 ? 4 : 3);
    byId("explorer-size-value").textContent = size + " % of the largest";
    byId("explorer-angle-value").textContent = angle + "°";
    const name = { gradient: "first order", curvature: "with curvature", tails: "with tails" }[known];
    const gain = 100 * (fits / zeroth - 1);
    byId("explorer-result").textContent =
      p + " radius: zeroth order " + zeroth.toFixed(3) + " σ, " + name + " " + fits.toFixed(3) +
      " σ (" + (gain >= 0 ? "+" : "") + gain.toFixed(1) + "\u00a0%)";
  };
  for (const name of names) byId("explorer-" + name).addEventListener("input", draw);
  for (const radio of document.querySelectorAll("input[type=radio]")) radio.addEventListener("change", draw);
  draw();
})();
