"""How the page looks, down to 390 pixels of width, and what screen readers read of its report."""

STYLE = """
.gradio-container { max-width: 1180px !important; margin: 0 auto; }
#preview figure, #compare figure, #difference figure, #convergence figure { margin: 0; }
#preview img { max-width: 100%; max-height: 320px; display: block; margin: 0 auto; }
figcaption { font-size: 0.85rem; color: var(--body-text-color); margin-top: 0.25rem; }
h2 { font-size: 1.05rem; margin: 0 0 0.4rem; }
#report { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 0.75rem 1rem; }
#report .proof { font-size: 1.05rem; }
#report p { margin: 0.3rem 0; }
#report .wrap:not(.hide) { background: var(--background-fill-primary) !important; }
.slider .frame { position: relative; line-height: 0; }
.slider img, #difference img, #convergence img { width: 100%; height: auto; display: block; }
.slider .over { position: absolute; inset: 0; clip-path: inset(0 calc(100% - 1% * var(--cut, 50)) 0 0); }
.slider .frame::after {
  content: ""; position: absolute; top: 0; bottom: 0; left: calc(1% * var(--cut, 50)); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000;
}
.slider .tag {
  position: absolute; bottom: 8px; padding: 2px 8px; border-radius: 4px; line-height: 1.4; font-size: 0.8rem;
  color: #fff; background: rgb(0 0 0 / 65%);
}
.slider .left { left: 8px; }
.slider .right { right: 8px; }
.slider input[type="range"] { width: 100%; min-height: 28px; margin: 6px 0 0; accent-color: #0f5499; }
a.download {
  display: inline-block; padding: 0.5rem 0.9rem; border-radius: 6px; background: #0f5499; color: #fff !important;
  text-decoration: none;
}
#upload, #upload button { white-space: normal; height: auto; }
button:focus-visible, input:focus-visible, textarea:focus-visible, a:focus-visible, [tabindex]:focus-visible,
label:has(input:focus-visible) { outline: 3px solid #b34700 !important; outline-offset: 2px; }
"""

ON_LOAD = """() => {
    document.documentElement.lang = "en";
    const report = document.getElementById("report");
    report.setAttribute("role", "status");
    report.setAttribute("aria-live", "polite");
    report.setAttribute("aria-label", "Result and proof");
}"""
"""Run when the page has loaded: the report is read out when it changes."""
