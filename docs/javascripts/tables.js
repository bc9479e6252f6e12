/* Wide tables scroll inside a block that the theme's script makes: let the keyboard reach it where it does. */
const reach = () => {
  for (const block of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (block.scrollWidth > block.clientWidth) block.tabIndex = 0;
    else block.removeAttribute("tabindex");
  }
};

addEventListener("load", reach);
addEventListener("resize", reach);
