// Before the first paint, so that no light page flashes up for who wants a dark one.
{
  const kept = localStorage.getItem("taskd.theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
}
