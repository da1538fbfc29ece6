// Show the service's own OpenAPI document. No validator elsewhere is asked, and no credential is remembered.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null,
  persistAuthorization: false,
});
