// Tells the values of the lines at the place that is pointed at. Text goes in as text only.
for (const plot of document.querySelectorAll(".plot")) {
  const lines = [...plot.querySelectorAll(".line")].map((line) => ({
    name: line.dataset.name,
    points: line.dataset.points.split("|").map((point) => point.split(";")),
  }));
  const mark = plot.querySelector(".at");
  const told = document.createElement("div");
  told.className = "told";
  told.hidden = true;
  plot.parentNode.append(told);
  const near = (points, x) =>
    points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
  const hide = () => {
    told.hidden = true;
    mark.style.visibility = "hidden";
  };
  const show = (event) => {
    const box = plot.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * plot.viewBox.baseVal.width;
    const at = near(lines.map((line) => near(line.points, x)), x);
    told.replaceChildren(at[1]);
    for (const line of lines) {
      const point = near(line.points, Number(at[0]));
      // A line that has no value near this place says nothing about it.
      if (Math.abs(point[0] - at[0]) > 6) continue;
      const row = document.createElement("div");
      row.textContent = `${line.name}: ${point[2]}`;
      told.append(row);
    }
    mark.setAttribute("x1", at[0]);
    mark.setAttribute("x2", at[0]);
    mark.style.visibility = "visible";
    told.hidden = false;
    const left = (at[0] / plot.viewBox.baseVal.width) * box.width + 24;
    const isRight = left + told.offsetWidth > box.width;
    told.style.left = `${isRight ? left - told.offsetWidth - 24 : left}px`;
    told.style.top = "52px";
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerleave", hide);
}
