// Makes the browser of a track page, and says in the page what it made: tests read it back.
(function () {
  "use strict";
  const spec = JSON.parse(document.getElementById("spec").textContent);
  const status = document.getElementById("status");
  const blocked = [];

  document.addEventListener("securitypolicyviolation", function (event) {
    blocked.push(event.violatedDirective + " " + event.blockedURI);
    document.body.dataset.blocked = JSON.stringify(blocked);
  });

  function fail(error) {
    document.body.dataset.state = "failed";
    status.hidden = false;
    status.textContent = "The browser could not be shown: " + (error && error.message || error);
  }

  window.addEventListener("error", function (event) { fail(event.error || event.message); });
  window.addEventListener("unhandledrejection", function (event) { fail(event.reason); });

  // What the browser itself has understood: tracks, bases, and values of the first of them.
  async function readBack(browser) {
    const at = spec.check;
    const views = browser.trackViews.map(function (view) { return view.track; });
    const values = {};
    for (const track of views) {
      if (track.type === "wig") {
        const found = await track.getFeatures(at.contig, at.start, at.stop, 0.01);
        values[track.name] = found
          .filter(function (each) { return each.start >= at.start && each.end <= at.stop; })
          .map(function (each) { return [each.start, each.end, each.value]; });
      } else if (track.type === "annotation") {
        const found = await track.getFeatures(at.contig, at.first, at.last, 0.01);
        values[track.name] = found.map(function (each) { return [each.start, each.end, each.name]; });
      }
    }
    return {
      tracks: views.map(function (track) { return [track.type, track.name]; }),
      locus: browser.currentLoci(),
      sequence: await browser.genome.getSequence(at.contig, at.start, at.stop),
      length: browser.genome.getChromosome(at.contig).bpLength,
      values: values,
    };
  }

  igv.createBrowser(document.getElementById("browser"), spec.browser)
    .then(async function (browser) {
      document.getElementById("loaded").textContent = JSON.stringify(await readBack(browser));
      document.body.dataset.state = "ready";
      status.hidden = true;
    })
    .catch(fail);
})();
