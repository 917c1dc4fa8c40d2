// Show how far the page is, and load it when it is there.
(async () => {
  const state = document.getElementById("state"), progress = document.getElementById("progress"), step = document.getElementById("step");
  for (;;) {
    let answer;
    try {
      const response = await fetch("state.json", { cache: "no-store" });
      answer = response.ok ? await response.json() : { error: await response.text() };
    } catch {
      answer = { error: "filterdb serve has stopped or cannot be reached." };
    }
    if (answer.ready) return location.reload();
    if (answer.error) {
      state.textContent = `This page cannot be shown: ${answer.error}`;
      progress.hidden = true;
      step.textContent = "Reload to try again.";
      return;
    }
    if (answer.steps) {
      progress.max = answer.steps;
      progress.value = Math.min(answer.done, answer.steps);
      step.textContent = `${answer.step}${answer.seconds > 3 ? `, for ${Math.round(answer.seconds)} s` : ""}`;
    } else step.textContent = "waiting for other computations";
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
})();
