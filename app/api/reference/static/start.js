// All addresses are relative, so the page also works behind a proxy that adds a path.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null, // the default sends the document to another site
});
