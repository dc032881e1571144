// The data of the page.

export const report = JSON.parse(document.getElementById("report-data").textContent);
export const { constants } = report;
