define void @kernel(ptr noalias %args, ptr noalias %scratch) {
entry:
  %v1 = getelementptr i64, ptr %args, i64 0
  %v2 = load i64, ptr %v1, align 8
  %x.address = inttoptr i64 %v2 to ptr
  %v3 = getelementptr i64, ptr %args, i64 1
  %v4 = load i64, ptr %v3, align 8
  %v5 = getelementptr i64, ptr %args, i64 2
  %v6 = load i64, ptr %v5, align 8
  %v7 = getelementptr i64, ptr %args, i64 5
  %v8 = load i64, ptr %v7, align 8
  %out.address = inttoptr i64 %v8 to ptr
  %v9 = getelementptr i64, ptr %args, i64 6
  %v10 = load i64, ptr %v9, align 8
  %v11 = getelementptr i64, ptr %args, i64 7
  %v12 = load i64, ptr %v11, align 8
  %v13 = getelementptr i64, ptr %args, i64 10
  %v14 = load i64, ptr %v13, align 8
  %v15 = trunc i64 %v14 to i16
  %v16 = bitcast i16 %v15 to half
  %v17 = fpext half %v16 to float
  %v18 = icmp ne i64 %v6, 2
  %v19 = ptrtoint ptr %x.address to i64
  %v20 = add i64 %v19, 2
  %v21 = sub i64 2, 1
  %v22 = mul i64 %v4, %v21
  %v23 = icmp slt i64 %v22, 0
  %v24 = select i1 %v23, i64 %v22, i64 0
  %v25 = add i64 %v19, %v24
  %v26 = select i1 %v23, i64 0, i64 %v22
  %v27 = add i64 %v20, %v26
  %v28 = sub i64 20, 1
  %v29 = mul i64 %v6, %v28
  %v30 = icmp slt i64 %v29, 0
  %v31 = select i1 %v30, i64 %v29, i64 0
  %v32 = add i64 %v25, %v31
  %v33 = select i1 %v30, i64 0, i64 %v29
  %v34 = add i64 %v27, %v33
  %v35 = ptrtoint ptr %out.address to i64
  %v36 = add i64 %v35, 2
  %v37 = sub i64 2, 1
  %v38 = mul i64 %v10, %v37
  %v39 = icmp slt i64 %v38, 0
  %v40 = select i1 %v39, i64 %v38, i64 0
  %v41 = add i64 %v35, %v40
  %v42 = select i1 %v39, i64 0, i64 %v38
  %v43 = add i64 %v36, %v42
  %v44 = sub i64 20, 1
  %v45 = mul i64 %v12, %v44
  %v46 = icmp slt i64 %v45, 0
  %v47 = select i1 %v46, i64 %v45, i64 0
  %v48 = add i64 %v41, %v47
  %v49 = select i1 %v46, i64 0, i64 %v45
  %v50 = add i64 %v43, %v49
  %v51 = icmp ult i64 %v32, %v50
  %v52 = icmp ult i64 %v48, %v34
  %v53 = and i1 %v51, %v52
  %v54 = icmp eq ptr %x.address, %out.address
  %v55 = icmp eq i64 %v4, %v10
  %v56 = and i1 %v54, %v55
  %v57 = icmp eq i64 %v6, %v12
  %v58 = and i1 %v56, %v57
  %v59 = xor i1 %v58, -1
  %v60 = and i1 %v53, %v59
  %v61 = or i1 %v18, %v60
  %v62 = getelementptr i8, ptr %scratch, i64 0
  br i1 %v61, label %rare, label %chosen, !prof !1
chosen:
  %v63 = phi ptr [%v62, %rare], [%x.address, %entry]
  %v64 = phi i64 [40, %rare], [%v4, %entry]
  %v65 = phi i64 [2, %rare], [%v6, %entry]
  %v66 = icmp ne i64 %v12, 2
  %v67 = getelementptr i8, ptr %scratch, i64 192
  br i1 %v66, label %rare.2, label %chosen.2, !prof !1
rare:
  call void @pto_wsp_copy_2(ptr %v62, i64 40, i64 2, ptr %x.address, i64 %v4, i64 %v6, i64 2, i64 20)
  br label %chosen
chosen.2:
  %v68 = phi ptr [%v67, %rare.2], [%out.address, %chosen]
  %v69 = phi i64 [40, %rare.2], [%v10, %chosen]
  %v70 = phi i64 [2, %rare.2], [%v12, %chosen]
  br label %loop
rare.2:
  br label %chosen.2
loop:
  %v71 = phi i64 [0, %chosen.2], [%v107, %body]
  %v72 = icmp slt i64 %v71, 2
  br i1 %v72, label %body, label %done
body:
  %v73 = mul i64 %v71, %v64
  %v74 = getelementptr i8, ptr %v63, i64 %v73
  %v75 = getelementptr i16, ptr %v74, i64 0
  %v76 = load <16 x i16>, ptr %v75, align 2
  %v77 = bitcast <16 x i16> %v76 to <16 x half>
  %v78 = fpext <16 x half> %v77 to <16 x float>
  %v79 = insertelement <16 x float> undef, float %v17, i32 0
  %v80 = shufflevector <16 x float> %v79, <16 x float> undef, <16 x i32> zeroinitializer
  %v81 = fmul <16 x float> %v78, %v80
  %v82 = fptrunc <16 x float> %v81 to <16 x half>
  %v83 = bitcast <16 x half> %v82 to <16 x i16>
  %v84 = bitcast <16 x i16> %v83 to <16 x half>
  %v85 = fpext <16 x half> %v84 to <16 x float>
  %v86 = mul i64 %v71, %v69
  %v87 = getelementptr i8, ptr %v68, i64 %v86
  %v88 = getelementptr i16, ptr %v87, i64 0
  store <16 x i16> %v83, ptr %v88, align 2
  %v89 = mul i64 %v71, %v64
  %v90 = getelementptr i8, ptr %v63, i64 %v89
  %v91 = getelementptr i16, ptr %v90, i64 16
  %v92 = call <16 x i16> @llvm.masked.load.v16i16.p0(ptr %v91, i32 2, <16 x i1> <i1 1, i1 1, i1 1, i1 1, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0, i1 0>, <16 x i16> zeroinitializer)
  %v93 = bitcast <16 x i16> %v92 to <16 x half>
  %v94 = fpext <16 x half> %v93 to <16 x float>
  %v95 = insertelement <16 x float> undef, float %v17, i32 0
  %v96 = shufflevector <16 x float> %v95, <16 x float> undef, <16 x i32> zeroinitializer
  %v97 = fmul <16 x float> %v94, %v96
  %v98 = fptrunc <16 x float> %v97 to <16 x half>
  %v99 = bitcast <16 x half> %v98 to <16 x i16>
  %v100 = bitcast <16 x i16> %v99 to <16 x half>
  %v101 = fpext <16 x half> %v100 to <16 x float>
  %v102 = mul i64 %v71, %v69
  %v103 = getelementptr i8, ptr %v68, i64 %v102
  %v104 = getelementptr i16, ptr %v103, i64 16
  %v105 = getelementptr i16, ptr %v104, i64 0
  %v106 = shufflevector <16 x i16> %v99, <16 x i16> %v99, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  store <4 x i16> %v106, ptr %v105, align 2
  %v107 = add nuw nsw i64 %v71, 1
  br label %loop
done:
  br i1 %v66, label %then, label %done.2, !prof !1
then:
  %v108 = getelementptr i8, ptr %scratch, i64 192
  call void @pto_wsp_copy_2(ptr %out.address, i64 %v10, i64 %v12, ptr %v108, i64 40, i64 2, i64 2, i64 20)
  br label %done.2
done.2:
  ret void
}

declare void @pto_wsp_copy_2(ptr, i64, i64, ptr, i64, i64, i64, i64)
declare <16 x i16> @llvm.masked.load.v16i16.p0(ptr, i32, <16 x i1>, <16 x i16>)
!1 = !{!"branch_weights", i32 1, i32 1048576}

define i64 @"kernel.scratch"() {
  ret i64 384
}
