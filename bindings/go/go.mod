module layerline

go 1.19
