// Opens HTML files in headless Chromium, in light and dark, wide and on a phone's width, and prints what axe finds.
// node accessible.cjs CHROMIUM FOLDER-OF-PICTURES-OR-- FILE...    (axe-core and puppeteer-core on NODE_PATH)
const { pathToFileURL } = require("node:url");
const path = require("node:path");
const puppeteer = require("puppeteer-core");
const { source } = require("axe-core");

const [executablePath, pictures, ...files] = process.argv.slice(2);
const widths = [1400, 400];
const themes = ["light", "dark"];

(async () => {
  const args = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"];
  const browser = await puppeteer.launch({ executablePath, args, protocolTimeout: 600000 });
  const found = [];
  for (const file of files) {
    for (const width of widths) {
      for (const theme of themes) {
        const page = await browser.newPage();
        page.setDefaultTimeout(300000);
        const asked = [];
        page.on("request", (request) => {
          if (!/^(file|data|blob|about):/.test(request.url())) asked.push(request.url());
        });
        await page.setViewport({ width, height: 900 });
        await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: theme }]);
        await page.goto(pathToFileURL(file).href, { waitUntil: "load" });
        await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
        await new Promise((resolve) => setTimeout(resolve, 300));
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        await page.evaluate(source);
        const { violations } = await page.evaluate(() => globalThis.axe.run(document));
        const serious = violations.filter((one) => ["serious", "critical"].includes(one.impact));
        const said = serious.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html).join(" | ")}`);
        found.push({ file: path.basename(file), width, theme, overflow, asked, serious: said });
        if (pictures !== "-") {
          await page.evaluate(() =>
            document.querySelectorAll("details:not([data-kept])").forEach((one) => (one.open = false)),
          );
          const name = `${path.basename(file, ".html")}-${width}-${theme}.png`;
          await page.screenshot({ path: path.join(pictures, name), fullPage: true });
        }
        await page.close();
      }
    }
  }
  await browser.close();
  process.stdout.write(JSON.stringify(found));
})();
